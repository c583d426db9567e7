"""Settings of all tests: where the shared data lies, one thread for torch, no deadline for Hypothesis, and a PostgreSQL
server that the tests start for themselves.

The models of the tests are so small that handing work to a second thread takes longer than the work.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("puna", deadline=None)  # a busy machine is no fault
settings.load_profile("puna")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real inputs, which a user's machine does not have."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder ../shared/data with real inputs is not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def llama3_vocabulary(shared_data: Path) -> Path:
    """Llama 3's real `tokenizer.model`."""
    path = shared_data / "llama3" / "tokenizer.model"
    if not path.is_file():
        pytest.skip("Llama 3's tokenizer.model is not in ../shared/data/llama3")
    return path


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Callable[..., None]:
    """Runs Python code with the path of a file system of one MiB, which no other process sees, as its argument."""

    def run(code: str, read_only: bool = False) -> None:
        if shutil.which("unshare") is None:
            pytest.skip("the program unshare is not installed")
        mount = 'mount -t tmpfs -o size=1m tmpfs "$0"' + (' && mount -o remount,ro "$0"' if read_only else "")
        shell = f'{mount} || exit 77; exec "$1" -c "$2" "$0"'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", shell, tmp_path, sys.executable, code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 77 or done.stderr.startswith("unshare:"):
            pytest.skip(f"this system lets no user mount a file system: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr

    return run


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


@pytest.fixture(scope="session")
def pgvector_server(postgres_server: str) -> str:
    """The URL of that server, where it has pgvector."""
    import psycopg

    with psycopg.connect(postgres_server) as connection:
        there = connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone()
    if there is None:
        pytest.skip("pgvector is not installed (in Debian the package postgresql-N-pgvector)")
    return postgres_server
