"""Vectors on the wire."""

from __future__ import annotations

import base64
import struct

import pytest

from puna.stack.wire.embeddings import EmbeddingRequest, embeddings_json, shortened


def test_vectors_travel_as_numbers_or_as_bytes() -> None:
    vectors = [[0.5, -2.0], [1.0, 0.0]]
    plain = embeddings_json("p/m", vectors, encoded=False, tokens=7)
    assert [row["embedding"] for row in plain["data"]] == vectors
    assert [row["index"] for row in plain["data"]] == [0, 1]
    assert plain["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    coded = embeddings_json("p/m", vectors, encoded=True, tokens=7)["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(coded)) == (0.5, -2.0)


def test_a_shortened_vector_has_length_one() -> None:
    assert shortened([3.0, 4.0, 12.0], 2) == pytest.approx([0.6, 0.8])
    assert shortened([0.0, 0.0, 1.0], 2) == [0.0, 0.0]


def test_an_input_is_texts_or_ids() -> None:
    assert EmbeddingRequest(model="m", input="a").input == "a"
    assert EmbeddingRequest.model_validate({"model": "m", "input": [[1, 2]]}).input == [[1, 2]]
