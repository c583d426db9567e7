"""The file below a library: transactions, its pool, and what is read from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import StorageError, VersionError
from puna.core.document import Document
from puna.knowledge.shelf import Row
from puna.knowledge.sqlite_shelf import SqliteShelf


@pytest.fixture
def made(tmp_path: Path) -> Iterator[SqliteShelf]:
    shelf = SqliteShelf(tmp_path / "below" / "a.sqlite")
    yield shelf
    shelf.close()


def row(text: str, number: int = 0) -> Row:
    return Row(f"chunk-{text}-{number}", f"content-{text}", number, number + len(text), "", "", text)


def add(made: SqliteShelf, id: str, *texts: str) -> None:
    with made.writing() as hand:
        hand.insert(Document(" ".join(texts), id), {"id": id}, "hash", [row(t, i) for i, t in enumerate(texts)])


def test_a_block_that_fails_leaves_nothing(made: SqliteShelf):
    with pytest.raises(RuntimeError), made.writing() as hand:
        hand.insert(Document("x", "a"), {}, "hash", [row("x")])
        raise RuntimeError
    with made.reading() as hand:
        assert hand.chunks() == 0
        assert hand.changes() == 0
    made.check()


def test_a_reader_sees_one_state_whoever_writes(made: SqliteShelf):
    add(made, "a", "fox")
    with made.reading() as hand:
        assert hand.by_words(["fox"], 5, None)
        add(made, "b", "fox")
        assert len(hand.by_words(["fox"], 5, None)) == 1
    with made.reading() as hand:
        assert len(hand.by_words(["fox"], 5, None)) == 2


def test_equals_at_the_end_are_all_given(made: SqliteShelf):
    for number in range(30):
        add(made, f"d{number}", "fox")
    add(made, "best", "fox fox fox")
    with made.reading() as hand:
        assert len(hand.by_words(["fox"], 2, None)) == 31
        assert len(hand.by_words(["fox"], 1, None)) == 1
        assert len(hand.by_words(["fox"], 5, np.array([1, 2]))) == 2


def test_only_chunks_among_those_of_another_query_are_scored(made: SqliteShelf):
    add(made, "a", "fox hen", "fox", "hen")
    with made.reading() as hand:
        every = dict(hand.by_words(["fox", "hen"], 9, None))
        some = dict(hand.by_words(["fox", "hen"], 9, None, ["hen"]))
        assert len(every) == 3
        assert len(some) == 2
        assert some.items() <= every.items()
        assert hand.by_words(["fox", "hen"], 9, np.array([2]), ["hen"]) == []


def test_vectors_by_chunk_in_the_order_asked(made: SqliteShelf):
    add(made, "a", "fox", "hen", "owl")
    vectors = {
        f"content-{text}": np.full(2, value, "<f4").tobytes() for text, value in (("fox", 1), ("owl", 3), ("cow", 4))
    }
    with made.writing() as hand:
        assert hand.insert_vectors("e", vectors) == 2  # nobody has a cow
        assert hand.insert_vectors("e", vectors) == 0
    with made.reading() as hand:
        ids, documents = hand.vector_rows("e")
        assert documents.tolist() == [1, 1]
        assert hand.vectors("e", 2, ids[::-1]).tolist() == [[3, 3], [1, 1]]
        assert hand.dimensions("e") == 2
        assert hand.dimensions("other") == 0
        assert [content for content, *_ in hand.without_vector("e", 9)] == ["content-hen"]
        assert hand.known_vectors("e", ["content-fox", "content-hen"]).keys() == {"content-fox"}


def test_changes_are_counted_where_a_search_could_see_them(made: SqliteShelf):
    add(made, "a", "fox")
    with made.writing() as hand:
        before = hand.changes()
        assert not hand.remove("b")
        assert hand.changes() == before
        assert hand.remove("a")
        assert hand.changes() == before + 1


def test_a_word_is_counted_in_whatever_form_the_index_keeps_it(made: SqliteShelf):
    add(made, "a", "Żółw", "turtle")
    with made.reading() as hand:
        assert hand.count_of("żółw") == 1
        assert hand.count_of("Żółw") == 1
        assert hand.count_of("nobody") == 0


def test_documents_that_pass(made: SqliteShelf):
    add(made, "a", "fox")
    add(made, "b", "fox")
    with made.reading() as hand:
        assert hand.allowed(lambda attributes: attributes["id"] == "b").tolist() == [2]


def test_damage_is_noticed(made: SqliteShelf):
    add(made, "a", "fox", "hen")
    made.check()
    with made.writing() as hand:
        hand.connection.execute("UPDATE chunks SET text = 'owl' WHERE text = 'fox'")  # behind the back of the words
    with pytest.raises(StorageError, match="cannot be used"):
        made.check()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        SqliteShelf(tmp_path / "file" / "a.sqlite")


def test_a_newer_library_is_refused(made: SqliteShelf, tmp_path: Path):
    with made.writing() as hand:
        hand.connection.execute("PRAGMA user_version = 99")
    with pytest.raises(VersionError, match="schema 99"):
        SqliteShelf(tmp_path / "below" / "a.sqlite")
