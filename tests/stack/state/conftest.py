"""Stores to test: one in SQLite and one in a PostgreSQL server that the tests start for themselves."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Store


def _program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(found[-1]) if found else None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server on the loopback, with a database of its own."""
    initdb, postgres = _program("initdb"), _program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("PostgreSQL's programs initdb and postgres are not installed")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    # PostgreSQL refuses to run as root, and other users cannot look into pytest's folder.
    user = "postgres" if os.geteuid() == 0 else None
    if user and not any(entry.pw_name == user for entry in pwd.getpwall()):
        pytest.skip("there is no user postgres to run PostgreSQL as")
    folder = Path(tempfile.mkdtemp(prefix="puna-postgres-"))
    if user:
        shutil.chown(folder, user)
    data = folder / "data"
    made = subprocess.run(
        [initdb, "-D", data, "-U", "puna", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
        capture_output=True, text=True, check=False, user=user, cwd=folder,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=60"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [postgres, "-D", data, "-p", str(port), *settings], stdout=log, stderr=log, user=user, cwd=folder
        )
    url = f"postgresql://puna@127.0.0.1:{port}/postgres"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(url).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A URL with empty tables for each test: a schema of its own."""
    import psycopg

    schema = f"test_{time.time_ns()}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    yield f"{postgres_server}?options=-csearch_path%3D{schema}"


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a store: a path or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "stack.db")
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def opened(where: str) -> Iterator[Callable[[], Store]]:
    """Opens the store of `where`, as often as it is called; closes them all."""
    stores: list[Store] = []

    def open_one() -> Store:
        if "://" in where:
            from puna.stack.state.postgres import PostgresStore

            stores.append(PostgresStore(where))
        else:
            stores.append(SqliteStore(where))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()
