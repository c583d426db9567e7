"""What is PostgreSQL's own: a URL whose password is never shown, a server that goes away, migrations by number."""

from __future__ import annotations

import pytest

from puna.base.errors import ConfigError, StorageError, VersionError

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

from puna.stack.state.postgres import PostgresStore  # noqa: E402 - it needs psycopg


def test_an_unreachable_server_is_named_without_the_password() -> None:
    with pytest.raises(StorageError) as caught:
        PostgresStore("postgresql://puna:sesame@127.0.0.1:1/records?connect_timeout=1")
    assert "'records' on 127.0.0.1" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_url_that_is_none_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        PostgresStore("postgresql://puna:sesame@[")
    assert "sesame" not in str(caught.value)


def test_connections_that_the_server_cut_are_replaced(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store.put("thing", "a", {"n": 1})
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'puna'")
    with pytest.raises(StorageError):
        store.get("thing", "a")
    found = store.get("thing", "a")
    assert found is not None
    store.close()


def test_opening_again_takes_no_step_twice(postgres_url: str) -> None:
    for n in range(3):
        store = PostgresStore(postgres_url)
        store.put("thing", str(n), {})
        assert len(store.list("thing").records) == n + 1
        rows, _ = store._run("SELECT version FROM records_schema", ())
        assert rows == [(1,)]
        store.close()


def test_a_database_of_a_newer_version_is_refused(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    store._run("INSERT INTO records_schema (version) VALUES (99)", ())
    store.close()
    with pytest.raises(VersionError, match="schema 99"):
        PostgresStore(postgres_url)


def test_a_failed_statement_leaves_the_connection_usable(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    with pytest.raises(StorageError), store.transaction():
        store.put("thing", "a", {})
        store._run("SELECT nonsense", ())
    assert store.get("thing", "a") is None
    store.put("thing", "a", {})
    store.close()
