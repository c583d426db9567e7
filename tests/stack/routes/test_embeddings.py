"""Texts to vectors over HTTP."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.stack.testing import make_stack, talk


def embed(folder: Path, **body: Any) -> httpx.Response:
    body = {"model": "letters", **body}
    return talk(make_stack(folder), lambda client: client.post("/v1/embeddings", json=body))


def test_each_text_gets_its_vector_in_order(tmp_path: Path) -> None:
    data = embed(tmp_path, input=["aaa", "bb"]).json()
    assert (data["object"], data["model"]) == ("list", "scripted/letters")
    assert [row["embedding"].index(1.0) for row in data["data"]] == [0, 1]
    assert len(embed(tmp_path, input="a").json()["data"]) == 1


def test_vectors_may_be_coded_and_shortened(tmp_path: Path) -> None:
    coded = embed(tmp_path, input="ab", encoding_format="base64", dimensions=2).json()["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(coded)) == pytest.approx((0.5**0.5, 0.5**0.5))


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"input": [1, 2, 3]}, 400, "input", "token ids"),
        ({"input": [[1], [2]]}, 400, "input", "token ids"),
        ({"input": []}, 400, "input", "no text"),
        ({"input": ["a"] * 2049}, 400, "input", "2,049"),
        ({"input": "a", "dimensions": 27}, 400, "dimensions", "26"),
        ({"input": "a", "encoding_format": "hex"}, 400, "encoding_format", "base64"),
        ({"input": "a", "model": "tiny"}, 400, "model", "not for embedding"),
        ({"input": "a", "model": "nobody"}, 404, "model", "nobody"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    tmp_path: Path, body: dict[str, Any], status: int, param: str, words: str
) -> None:
    answer = embed(tmp_path, **body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]
