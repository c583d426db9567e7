"""Rankings by words and by vectors, fused, over an index and the vectors beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import ArtifactError
from puna.core.document import Document
from puna.knowledge.hybrid import HybridIndex, PassageVectors, fuse, save_vectors
from puna.knowledge.index import PassageIndex
from puna.knowledge.nearest import unit

TEXTS = ("the red fox runs", "a hen and a fox", "a parrot of the mountains", "red paint")


@pytest.fixture
def index(tmp_path: Path, document: Callable[..., Document]) -> PassageIndex:
    documents = [document(text, "text", f"{number}.txt") for number, text in enumerate(TEXTS)]
    return PassageIndex.build(tmp_path / "index", documents, 200)


@pytest.fixture
def vectors(tmp_path: Path, embedder) -> PassageVectors:
    save_vectors(tmp_path / "vectors.npy", unit(embedder(TEXTS)))
    return PassageVectors.load(tmp_path / "vectors.npy")


def test_vectors_rank_as_their_products_do(vectors: PassageVectors, embedder) -> None:
    assert len(vectors) == len(TEXTS)
    (query,) = unit(embedder(["fox and hen"]))
    expected = unit(embedder(TEXTS)) @ query
    ranked = vectors.rank(query, 3)
    assert [number for number, _ in ranked] == np.argsort(-expected)[:3].tolist()
    for number, score in ranked:
        assert score == pytest.approx(expected[number], abs=2e-3)  # two bytes a number


def test_a_hit_of_both_rankings_comes_first_and_has_a_score_of_one(index, vectors, embedder) -> None:
    hybrid = HybridIndex(index, vectors, embedder, 0.5)
    (best, score), *rest = hybrid.search("a hen and a fox", 4)
    assert best.text == TEXTS[1]
    assert score == pytest.approx(1.0)
    assert [score for _, score in rest] == sorted((score for _, score in rest), reverse=True)


def test_what_words_do_not_find_vectors_do(index, vectors) -> None:
    def embed(texts):
        return np.stack([vectors._fetch(np.array([2]))[0] for _ in texts])  # means the parrot, whatever it says

    hybrid = HybridIndex(index, vectors, embed, 0.5)
    assert index.search("kea") == []
    assert hybrid.search("kea", 1)[0][0].text == TEXTS[2]
    # A word that stands in one passage alone outweighs the vectors' first, which counts half.
    assert hybrid.search("paint", 1)[0][0].text == TEXTS[3]


def test_no_weight_leaves_the_ranking_by_words(index, vectors, embedder) -> None:
    words = [passage for passage, _ in index.search("red fox hen", 4)]
    assert [passage for passage, _ in HybridIndex(index, vectors, embedder, 0.0).search("red fox hen", 4)] == words
    assert [number for number, _ in fuse([3, 1], [2, 1], 0.0)] == [3, 1]


def test_fusing_rewards_agreement_and_breaks_ties_by_number() -> None:
    assert next(number for number, _ in fuse([5, 1], [7, 1], 1.0)) == 1
    assert [number for number, _ in fuse([9], [4], 1.0)] == [4, 9]
    assert fuse([], [], 0.5) == []


def test_vectors_of_another_index_are_refused(index, tmp_path: Path, embedder) -> None:
    save_vectors(tmp_path / "other.npy", unit(embedder(TEXTS[:2])))
    with pytest.raises(ArtifactError, match="4 passages, and there are vectors of 2"):
        HybridIndex(index, PassageVectors.load(tmp_path / "other.npy"), embedder, 0.5)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01"])
def test_a_file_that_holds_no_vectors_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be read"):
        PassageVectors.load(tmp_path / "v.npy")
    with pytest.raises(ArtifactError, match="cannot be read"):
        PassageVectors.load(tmp_path / "nowhere.npy")


def test_numbers_of_another_kind_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.zeros((2, 3), np.int64))
    with pytest.raises(ArtifactError, match="int64 of shape"):
        PassageVectors.load(tmp_path / "v.npy")
