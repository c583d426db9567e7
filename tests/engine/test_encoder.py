"""Encoders are read from a folder and read texts as far as they were taught to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import CheckpointError
from puna.core.protocols import Embedder
from puna.engine.encoder import Encoder
from puna.model.checkpoint import Checkpoint
from puna.testing import tiny_checkpoint, tiny_model, tiny_tokenizer

TEXTS = ["a kea opens bins", "x", "", "two\nlines of a text"]


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(tiny_model(max_position_embeddings=12).eval(), tiny_tokenizer())


def test_each_text_has_a_vector_of_length_one(encoder: Encoder) -> None:
    vectors = encoder.vectors(TEXTS)
    assert vectors.shape == (4, encoder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert encoder.embed(TEXTS) == vectors.tolist()
    assert isinstance(encoder, Embedder)


def test_a_vector_does_not_depend_on_its_neighbours(encoder: Encoder) -> None:
    together = encoder.vectors(TEXTS)
    alone = np.concatenate([encoder.vectors([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_long_text_is_read_as_far_as_the_context_goes(encoder: Encoder) -> None:
    start = "words and more words "
    assert len(encoder.encode(start * 1000)) == 12
    np.testing.assert_array_equal(encoder.vectors([start * 1000]), encoder.vectors([start * 3000]))


def test_a_folder_is_read_back(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "encoder")
    np.testing.assert_array_equal(Encoder.load(folder, device="cpu").vectors(TEXTS),
                                  Encoder.load(folder, device="cpu").vectors(TEXTS))  # fmt: skip
    bare = tmp_path / "bare"
    Checkpoint.of(tiny_model()).save(bare)
    with pytest.raises(CheckpointError, match="no tokenizer"):
        Encoder.load(bare)
    with pytest.raises(CheckpointError):
        Encoder.load(tmp_path / "nowhere")
