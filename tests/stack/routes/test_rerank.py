"""Rankings over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.stack.providers.provider import ModelInfo
from puna.stack.testing import ScriptedProvider, make_stack, talk


class Ranking(ScriptedProvider):
    """Ranks by length."""

    async def rerank(self, model: str, query: str, texts: Sequence[str]) -> list[float]:
        del model, query
        return [float(len(text)) for text in texts]


def post(folder: Path, path: str, body: dict[str, Any]) -> httpx.Response:
    models = (ModelInfo("ranker", "rerank"),)
    providers = ScriptedProvider(), Ranking("r", models=models), ScriptedProvider("cannot", models=models)
    return talk(make_stack(folder, *providers), lambda client: client.post(path, json=body))


def test_the_nearest_text_is_first(tmp_path: Path) -> None:
    items = ["zzz", {"type": "text", "text": "aab"}, "aaa"]
    data = post(tmp_path, "/v1alpha/inference/rerank", {"model": "letters", "query": "aa", "items": items}).json()[
        "data"
    ]
    assert [row["index"] for row in data] == [2, 1, 0]
    assert data[0]["relevance_score"] == pytest.approx(1.0)
    assert data[2]["relevance_score"] == 0.0
    body = {"model": "letters", "query": {"type": "text", "text": "z"}, "items": items, "max_num_results": 1}
    assert [row["index"] for row in post(tmp_path, "/v1alpha/inference/rerank", body).json()["data"]] == [0]


def test_a_model_made_for_it_says_its_own_scores(tmp_path: Path) -> None:
    body = {"model": "r/ranker", "query": "q", "documents": ["a", {"text": "aaa"}, "aa"], "top_n": 2}
    results = post(tmp_path, "/v1/rerank", body).json()["results"]
    assert [(row["index"], row["relevance_score"], row["document"]["text"]) for row in results] == [
        (1, 3.0, "aaa"),
        (2, 2.0, "aa"),
    ]
    bare = post(tmp_path, "/v1/rerank", {**body, "return_documents": False}).json()["results"]
    assert all("document" not in row for row in bare)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"documents": []}, 400, "nothing to rank"),
        ({"documents": ["a"] * 2049}, 400, "2,049"),
        ({"documents": [{"type": "image_url"}]}, 400, "read text"),
        ({"model": "tiny"}, 400, "not for embedding"),
        ({"model": "nobody"}, 404, "nobody"),
        ({"model": "cannot/ranker"}, 501, "cannot rank"),
        ({"top_n": 0}, 400, "top_n"),
    ],
)
def test_what_cannot_be_ranked_is_refused(tmp_path: Path, body: dict[str, Any], status: int, words: str) -> None:
    answer = post(tmp_path, "/v1/rerank", {"model": "letters", "query": "q", "documents": ["a"], **body})
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]
