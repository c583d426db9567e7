"""PostgreSQL with pgvector: it finds what SQLite finds, with the same scores, and tells what is wrong."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from puna.base.errors import ConfigError, StorageError, VersionError
from puna.core.document import Document
from puna.knowledge.library import Hit, Library, LibraryConfig
from puna.knowledge.postgres_shelf import PostgresShelf

CONFIG = LibraryConfig(chunk_chars=60)


@pytest.fixture
def name(pgvector_server: str) -> Iterator[str]:
    """Of a library that nobody has."""
    name = f"test_{uuid.uuid4().hex[:20]}"
    yield name
    with psycopg.connect(pgvector_server, autocommit=True) as connection:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


WORDS = ("fox", "Hen", "Żółw", "write_all", "e\u0301clair", "мир", "2024", "the")
TEXTS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map(" ".join), min_size=1, max_size=8, unique=True
)
QUERIES = ("fox hen", "żółw write_all", "éclair", "МИР 2024", "zolw", "nothing of it", "the")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_both_stores_find_the_same_with_the_same_scores(
    pgvector_server: str, name: str, tmp_path: Path, embedder, texts: list[str]
) -> None:
    with (
        Library(tmp_path / f"{uuid.uuid4()}.sqlite", embedder, CONFIG) as lite,
        Library(PostgresShelf(pgvector_server, name), embedder, CONFIG) as postgres,
    ):
        for id in postgres.documents():
            postgres.delete(id)
        for number, text in enumerate(texts):
            for library in (lite, postgres):
                library.put(Document(text, f"d{number}", f"{number % 3}.txt"), {"even": number % 2 == 0})
        even = {"type": "eq", "key": "even", "value": True}
        for query in QUERIES:
            for mode in ("words", "vector", "hybrid"):
                for filters in (None, even):
                    expected = lite.search(query, 4, mode=mode, filters=filters)
                    found = postgres.search(query, 4, mode=mode, filters=filters)
                    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], rel=1e-6)
                    assert above_the_last(found) == above_the_last(expected)
        postgres.check()


def above_the_last(hits: list[Hit]) -> set[str]:
    """Hits that no equal could have pushed out: which of equals comes last hangs on the last digit of a score."""
    return {hit.chunk_id for hit in hits if len(hits) < 4 or hit.score > hits[-1].score * (1 + 1e-6)}


def test_a_library_is_there_for_whoever_opens_it_next(pgvector_server: str, name: str, embedder) -> None:
    with Library(PostgresShelf(pgvector_server, name), embedder, CONFIG) as library:
        library.put(Document("a fox\0 runs", "a", "x.txt", meta={"n": 1}), {"k": "\0"})
    with Library(PostgresShelf(pgvector_server, name), embedder, CONFIG) as again:
        assert again.document("a") == Document("a fox\0 runs", "a", "x.txt", meta={"n": 1})
        assert again.attributes("a") == {"k": "\0"}
        assert [hit.document_id for hit in again.search("fox")] == ["a"]


def test_libraries_of_one_database_know_nothing_of_each_other(pgvector_server: str, name: str) -> None:
    other = f"{name}_2"
    with Library(PostgresShelf(pgvector_server, name)) as one, Library(PostgresShelf(pgvector_server, other)) as two:
        one.put(Document("fox", "a", "x"))
        assert two.search("fox") == []
        assert two.documents() == []
    shelf = PostgresShelf(pgvector_server, other)
    shelf.drop()
    with psycopg.connect(pgvector_server) as connection:
        assert connection.execute("SELECT to_regnamespace(%s)", (other,)).fetchone() == (None,)
    with pytest.raises(StorageError, match="is closed"), shelf.reading():
        raise AssertionError("it is gone")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chunks SET text = 'owl' WHERE id = (SELECT min(id) FROM chunks)",
        "DELETE FROM vocabulary WHERE word = 'fox'",
        "UPDATE counters SET value = 7 WHERE name = 'chunks'",
    ],
)
def test_damage_is_noticed(pgvector_server: str, name: str, statement: str) -> None:
    with Library(PostgresShelf(pgvector_server, name)) as library:
        library.put(Document("fox and hen", "a", "x"))
        library.check()
        with library._shelf.writing() as hand:
            hand.connection.execute(statement)  # type: ignore[attr-defined]
        with pytest.raises(StorageError, match="is damaged"):
            library.check()


def test_a_connection_that_the_server_has_ended_is_replaced(pgvector_server: str, name: str) -> None:
    with Library(PostgresShelf(pgvector_server, name)) as library:
        library.put(Document("fox", "a", "x"))
        with psycopg.connect(pgvector_server, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'puna'")
        with pytest.raises(StorageError, match="cannot be used"):  # what was under way is lost, and told
            library.search("fox")
        assert [hit.document_id for hit in library.search("fox")] == ["a"]


def test_a_newer_library_is_refused(pgvector_server: str, name: str) -> None:
    shelf = PostgresShelf(pgvector_server, name)
    with shelf.writing() as hand:
        hand.connection.execute("UPDATE counters SET value = 99 WHERE name = 'version'")  # type: ignore[attr-defined]
    shelf.close()
    with pytest.raises(VersionError, match="schema 99"):
        PostgresShelf(pgvector_server, name)


def test_a_user_who_may_not_add_pgvector_is_told_who_can(postgres_server: str, pgvector_server: str) -> None:
    database, user = (f"test_{uuid.uuid4().hex[:16]}" for _ in range(2))
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE USER {user}")
        connection.execute(f"CREATE DATABASE {database}")
    url = pgvector_server.replace("puna@", f"{user}@").rsplit("/", 1)[0] + f"/{database}"
    with pytest.raises(ConfigError, match="may not add pgvector") as caught:
        PostgresShelf(url, "books")
    assert "CREATE EXTENSION vector" in caught.value.hint


@pytest.mark.parametrize("name", ["", "Books", "1st", "a-b", "x; DROP TABLE y", "a" * 64])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="small letters"):
        PostgresShelf("postgresql://127.0.0.1/x", name)


def test_what_is_secret_in_a_url_is_not_told() -> None:
    with pytest.raises(ConfigError) as caught:
        PostgresShelf("postgresql://me:hushhush@[/x", "books")
    assert "hushhush" not in str(caught.value)
    with pytest.raises(StorageError) as refused:
        PostgresShelf("postgresql://me:hushhush@127.0.0.1:9/x", "books")
    assert "hushhush" not in str(refused.value)
