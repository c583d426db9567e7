"""The bytes of uploaded files: one file of the disk for each, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.to_thread

from puna.base.errors import ArtifactError, storage_errors
from puna.stack.errors import ApiError


class FileStore:
    """A folder of blobs.

    Args:
        folder: made at the first write.
        max_bytes: of one file.
    """

    def __init__(self, folder: Path | str, max_bytes: int = 512 << 20) -> None:
        self.folder, self.max_bytes = Path(folder), max_bytes

    def path(self, id: str) -> Path:
        """Where a file's bytes are."""
        if not id.isascii() or not id.replace("-", "").replace("_", "").isalnum():
            raise ApiError(400, f"{id!r} is no file id.", param="file_id")
        return self.folder / id

    async def write(self, id: str, chunks: AsyncIterator[bytes]) -> int:
        """Writes a file; returns its bytes.

        Raises:
            ApiError: 413 beyond `max_bytes`; nothing is kept then.
        """
        path = self.path(id)
        partial = _partial(path)
        size = 0
        with storage_errors(path):
            await anyio.to_thread.run_sync(lambda: self.folder.mkdir(parents=True, exist_ok=True))
            try:
                async with await anyio.open_file(partial, "wb") as file:
                    async for chunk in chunks:
                        size += len(chunk)
                        if size > self.max_bytes:
                            message = f"The file is larger than the {self.max_bytes:,} bytes that a file may have."
                            raise ApiError(413, message, param="file", code="too_large")
                        await file.write(chunk)
                    await file.flush()
                    await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
                await anyio.to_thread.run_sync(_publish, partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        return size

    def read(self, id: str) -> bytes:
        try:
            return self.path(id).read_bytes()
        except FileNotFoundError as error:
            raise _lost(id) from error

    def lines(self, id: str) -> Iterator[bytes]:
        """A file's lines, one after the other, however large it is."""
        try:
            with self.path(id).open("rb") as file:
                yield from file
        except FileNotFoundError as error:
            raise _lost(id) from error

    def delete(self, id: str) -> None:
        """Deletes a file, and what a killed process has left of one."""
        path = self.path(id)
        path.unlink(missing_ok=True)
        _partial(path).unlink(missing_ok=True)


def _lost(id: str) -> ArtifactError:
    return ArtifactError(
        f"The bytes of {id} are gone.", hint="Something other than the server deleted them; upload again."
    )


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _publish(partial: Path, path: Path) -> None:
    """Gives a whole file its name, and makes the name survive a loss of power."""
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
