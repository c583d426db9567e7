"""The file below a library: transactions, its pool, and what is read from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from puna.base.errors import StorageError
from puna.core.document import Document
from puna.knowledge import shelf
from puna.knowledge.shelf import Row, Shelf


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "below" / "a.sqlite")
    yield shelf
    shelf.close()


def row(text: str, number: int = 0) -> Row:
    return Row(f"chunk-{text}-{number}", f"content-{text}", number, number + len(text), "", "", text)


def add(made: Shelf, id: str, *texts: str) -> None:
    with made.writing() as connection:
        shelf.insert(
            connection, Document(" ".join(texts), id), {"id": id}, "hash", [row(t, i) for i, t in enumerate(texts)]
        )


def test_a_block_that_fails_leaves_nothing(made: Shelf):
    with pytest.raises(RuntimeError), made.writing() as connection:
        shelf.insert(connection, Document("x", "a"), {}, "hash", [row("x")])
        raise RuntimeError
    with made.reading() as connection:
        assert connection.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
        assert shelf.changes(connection) == 0
    made.check()


def test_a_reader_sees_one_state_whoever_writes(made: Shelf):
    add(made, "a", "fox")
    with made.reading() as connection:
        assert shelf.by_words(connection, '"fox"', (1, 1, 1), 5, None)
        add(made, "b", "fox")
        assert len(shelf.by_words(connection, '"fox"', (1, 1, 1), 5, None)) == 1
    with made.reading() as connection:
        assert len(shelf.by_words(connection, '"fox"', (1, 1, 1), 5, None)) == 2


def test_equals_at_the_end_are_all_given(made: Shelf):
    for number in range(30):
        add(made, f"d{number}", "fox")
    add(made, "best", "fox fox fox")
    with made.reading() as connection:
        assert len(shelf.by_words(connection, '"fox"', (1, 1, 1), 2, None)) == 31
        assert len(shelf.by_words(connection, '"fox"', (1, 1, 1), 1, None)) == 1
        assert len(shelf.by_words(connection, '"fox"', (1, 1, 1), 5, np.array([1, 2]))) == 2


def test_only_chunks_among_those_of_another_query_are_scored(made: Shelf):
    add(made, "a", "fox hen", "fox", "hen")
    with made.reading() as connection:
        every = dict(shelf.by_words(connection, '"fox" OR "hen"', (1, 1, 1), 9, None))
        some = dict(shelf.by_words(connection, '"fox" OR "hen"', (1, 1, 1), 9, None, '"hen"'))
        assert len(every) == 3
        assert len(some) == 2
        assert some.items() <= every.items()
        assert shelf.by_words(connection, '"fox" OR "hen"', (1, 1, 1), 9, np.array([2]), '"hen"') == []


def test_vectors_by_chunk_in_the_order_asked(made: Shelf):
    add(made, "a", "fox", "hen", "owl")
    vectors = {
        f"content-{text}": np.full(2, value, "<f4").tobytes() for text, value in (("fox", 1), ("owl", 3), ("cow", 4))
    }
    with made.writing() as connection:
        assert shelf.insert_vectors(connection, "e", vectors) == 2  # nobody has a cow
        assert shelf.insert_vectors(connection, "e", vectors) == 0
    with made.reading() as connection:
        ids, documents = shelf.vector_rows(connection, "e")
        assert documents.tolist() == [1, 1]
        assert shelf.fetch_vectors(connection, "e", 2, ids[::-1]).tolist() == [[3, 3], [1, 1]]
        assert shelf.dimensions(connection, "e") == 2
        assert shelf.dimensions(connection, "other") == 0
        assert [content for content, *_ in shelf.without_vector(connection, "e", 9)] == ["content-hen"]
        assert shelf.known_vectors(connection, "e", ["content-fox", "content-hen"]).keys() == {"content-fox"}


def test_changes_are_counted_where_a_search_could_see_them(made: Shelf):
    add(made, "a", "fox")
    with made.writing() as connection:
        before = shelf.changes(connection)
        assert not shelf.remove(connection, "b")
        assert shelf.changes(connection) == before
        assert shelf.remove(connection, "a")
        assert shelf.changes(connection) == before + 1


def test_a_word_is_counted_in_whatever_form_the_index_keeps_it(made: Shelf):
    add(made, "a", "Żółw", "turtle")
    with made.reading() as connection:
        assert shelf.count_of(connection, "żółw", "zołw") == 1
        assert shelf.count_of(connection, "żółw", "żółw") == 1
        assert shelf.count_of(connection, "nobody", "nobody") == 0


def test_documents_that_pass(made: Shelf):
    add(made, "a", "fox")
    add(made, "b", "fox")
    with made.reading() as connection:
        assert shelf.allowed(connection, lambda attributes: attributes["id"] == "b").tolist() == [2]


def test_damage_is_noticed(made: Shelf):
    add(made, "a", "fox", "hen")
    made.check()
    with made.writing() as connection:
        connection.execute("UPDATE chunks SET text = 'owl' WHERE text = 'fox'")  # behind the back of the words
    with pytest.raises(StorageError, match="cannot be used"):
        made.check()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        Shelf(tmp_path / "file" / "a.sqlite")


def test_json_survives_with_everything_in_it():
    data = {"é": "\ud800", "n": None, "l": [1, {"a": True}]}
    assert shelf.load(shelf.dump(data)) == data
    assert shelf.load(shelf.dump(None)) == {}
