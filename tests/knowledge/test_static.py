"""Vectors without a model: what is near what, the file, and texts of all kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.base.errors import ArtifactError, ConfigError
from puna.core.protocols import Embedder
from puna.knowledge.static import StaticConfig, StaticEmbedder, split

ANIMALS = ["the cat chased a mouse", "the dog chased a cat", "a dog and a cat sleep", "the mouse sleeps near a dog"]
SHIPS = [
    "the ship sailed to the harbour",
    "a boat left the harbour",
    "the captain of the ship",
    "a boat and its captain",
]
CONFIG = StaticConfig(dimensions=4, hashed=256, vocabulary=100, window=4, meaning=0.5)


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.learn([*ANIMALS, *SHIPS] * 5, CONFIG)


def cosine(embedder: StaticEmbedder, one: str, other: str) -> float:
    a, b = embedder.vectors([one, other])
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_it_is_an_embedder_of_vectors_that_are_longer_for_more(embedder: StaticEmbedder):
    assert isinstance(embedder, Embedder)
    vectors = embedder.embed(["cat", "ship and boat and mouse and dog"])
    assert [len(vector) for vector in vectors] == [embedder.dimensions] * 2 == [260] * 2
    short, long = np.linalg.norm(vectors, axis=1)
    assert 0 < short < long < 1
    assert np.linalg.norm(StaticEmbedder.untrained().vectors(["a b", "c"]), axis=1) == pytest.approx([1, 1])


def test_the_first_line_of_several_is_a_title_and_counts_for_more():
    plain = StaticEmbedder.untrained(512)
    assert cosine(plain, "fox", "fox\nhen owl cow") > 2 * cosine(plain, "fox", "hen\nfox owl cow") > 0.1


def test_shared_words_make_texts_near(embedder: StaticEmbedder):
    assert cosine(embedder, "the zebra", "a zebra") > 0.5 > cosine(embedder, "the zebra", "a walrus")


def test_words_of_one_company_are_nearer_than_others(embedder: StaticEmbedder):
    assert cosine(embedder, "boat", "ship") > cosine(embedder, "boat", "mouse") + 0.1


def test_a_rare_word_weighs_more_than_a_common_one(embedder: StaticEmbedder):
    assert cosine(embedder, "the walrus", "walrus") > cosine(embedder, "the walrus", "the")


def test_identifiers_meet_their_parts():
    assert split("WriteTransport") == ["writetransport", "write", "transport"]
    assert split("copy_file2") == ["copy_file2", "copy", "file", "2"]
    assert split("HTTPServer") == ["httpserver", "http", "server"]
    assert split("_private") == ["_private"]
    assert split("żółw") == ["żółw"]
    plain = StaticEmbedder.untrained(512)
    assert cosine(plain, "write transport", "WriteTransport") > 0.5


def test_the_order_of_texts_in_a_call_does_not_matter(embedder: StaticEmbedder):
    texts = [f"{a} {b}" for a in ANIMALS for b in SHIPS] * 5
    together = embedder.vectors(texts)
    assert all((together[i] == embedder.vectors([texts[i]])[0]).all() for i in (0, 5, 63, 64, 79))


def test_it_does_not_depend_on_what_was_embedded_before():
    fresh, used = StaticEmbedder.untrained(), StaticEmbedder.untrained()
    used.vectors(["something else first"])
    assert (fresh.vectors(["walrus"]) == used.vectors(["walrus"])).all()


def test_learning_is_repeatable_and_names_tell_tables_apart(embedder: StaticEmbedder):
    again = StaticEmbedder.learn([*ANIMALS, *SHIPS] * 5, CONFIG)
    assert again.name == embedder.name
    assert StaticEmbedder.learn(ANIMALS, CONFIG).name != embedder.name
    assert StaticEmbedder.untrained().name != StaticEmbedder.untrained(64).name


def test_a_file_gives_the_same_vectors(embedder: StaticEmbedder, tmp_path: Path):
    for one in (embedder, StaticEmbedder.untrained(32)):
        one.save(tmp_path / "words.npz")
        again = StaticEmbedder.load(tmp_path / "words.npz")
        assert again.name == one.name
        assert (again.vectors(["a ship of cats"]) == one.vectors(["a ship of cats"])).all()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"nothing at all"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="no table"):
        StaticEmbedder.load(tmp_path / "x.npz")
    with pytest.raises(ArtifactError, match="There is no table"):
        StaticEmbedder.load(tmp_path / "nowhere.npz")


def test_a_cut_off_file_is_refused(embedder: StaticEmbedder, tmp_path: Path):
    embedder.save(tmp_path / "x.npz")
    data = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ArtifactError, match="no table"):
        StaticEmbedder.load(tmp_path / "x.npz")


@pytest.mark.parametrize("texts", [[], [""], ["one"], ["a a a"], ["?!", "..."]])
def test_next_to_no_texts_still_make_a_table(texts: list[str]):
    embedder = StaticEmbedder.learn(texts, CONFIG)
    assert np.isfinite(embedder.vectors(["one a", ""])).all()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=30), max_size=5))
def test_any_text_has_a_vector_of_length_one_or_less(embedder: StaticEmbedder, texts: list[str]):
    lengths = np.linalg.norm(embedder.vectors(texts), axis=1)
    assert (lengths <= 1 + 1e-5).all()
    assert [length > 0 for length in lengths] == [any(map(str.isalnum, text)) or "_" in text for text in texts]


def test_settings_out_of_range_are_refused():
    for wrong in ({"vocabulary": 0}, {"meaning": 1.5}, {"window": 0}):
        with pytest.raises(ConfigError):
            StaticConfig(**wrong)  # type: ignore[arg-type]
