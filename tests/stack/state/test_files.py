"""Bytes on the disk: whole or absent, within their limit, and within their folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from puna.base.errors import ArtifactError
from puna.stack.errors import ApiError
from puna.stack.state.files import FileStore


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error:
        raise error


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    files = FileStore(tmp_path / "files")

    async def main() -> None:
        assert await files.write("file-1", pieces(b"one\n", b"", b"two\nthree")) == 13

    anyio.run(main)
    assert files.read("file-1") == b"one\ntwo\nthree"
    assert list(files.lines("file-1")) == [b"one\n", b"two\n", b"three"]


def test_writing_again_replaces(tmp_path: Path) -> None:
    files = FileStore(tmp_path)

    async def main() -> None:
        await files.write("file-1", pieces(b"a long one"))
        await files.write("file-1", pieces(b"short"))

    anyio.run(main)
    assert files.read("file-1") == b"short"


def test_a_file_above_the_limit_leaves_nothing(tmp_path: Path) -> None:
    files = FileStore(tmp_path, max_bytes=10)

    async def main() -> None:
        assert await files.write("file-1", pieces(b"x" * 10)) == 10
        with pytest.raises(ApiError, match="10 bytes") as caught:
            await files.write("file-2", pieces(b"x" * 6, b"x" * 5))
        assert caught.value.status == 413

    anyio.run(main)
    assert [path.name for path in tmp_path.iterdir()] == ["file-1"]


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    files = FileStore(tmp_path)

    async def main() -> None:
        with pytest.raises(ConnectionError):
            await files.write("file-1", pieces(b"half", error=ConnectionError()))

    anyio.run(main)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("id", ["", "../etc", "a/b", ".", "a.b", "a\0", "ä"])
def test_an_id_that_is_a_path_is_refused(tmp_path: Path, id: str) -> None:
    with pytest.raises(ApiError) as caught:
        FileStore(tmp_path).read(id)
    assert caught.value.status == 400


def test_bytes_that_are_gone_are_said_to_be(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    with pytest.raises(ArtifactError, match="file-1 are gone"):
        files.read("file-1")
    with pytest.raises(ArtifactError, match="file-1 are gone"):
        list(files.lines("file-1"))
    files.delete("file-1")


CHILD = """
import sys, anyio
from puna.stack.state.files import FileStore
files = FileStore(sys.argv[1])
async def pieces(n):
    for _ in range(50):
        yield b"%d" % (n % 10) * 20000
async def main():
    for n in range(10**9):
        await files.write(f"file-{n}", pieces(n))
        print(n, flush=True)
anyio.run(main)
"""


def test_a_kill_leaves_whole_files_and_partial_ones_that_are_no_files(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(5):
        last = int(child.stdout.readline())
    child.kill()
    child.wait()
    child.stdout.close()
    files = FileStore(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {f"file-{n}" for n in range(last + 1)} <= names
    for name in names:
        if not name.endswith(".partial"):
            digit = name.removeprefix("file-")[-1].encode()
            assert files.read(name) == digit * 1_000_000
        else:
            files.delete(name.removesuffix(".partial"))
    assert not list(tmp_path.glob("*.partial"))


FULL = """
import sys, anyio
from pathlib import Path
from puna.base.errors import StorageError
from puna.stack.state.files import FileStore
folder = Path(sys.argv[1]) / "files"
files = FileStore(folder)
async def pieces(count):
    for _ in range(count):
        yield b"x" * 100_000
async def main():
    await files.write("file-1", pieces(2))
    try:
        await files.write("file-2", pieces(20))
    except StorageError as error:
        assert "full" in str(error)
    else:
        raise AssertionError("the disk was not full")
    assert [path.name for path in folder.iterdir()] == ["file-1"]
anyio.run(main)
"""


def test_a_full_disk_is_said_and_leaves_nothing(small_filesystem: Callable[..., None]) -> None:
    small_filesystem(FULL)
