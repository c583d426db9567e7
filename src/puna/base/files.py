"""Files that are either whole or absent, and names made of content.

Every write that matters goes to a temporary neighbour, is flushed to the disk and is then renamed over the target:
a process killed at any moment leaves the old artifact or the new one, never a half. What this module leaves out is
locking between machines: `folder_lock` guards one file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

from puna.base.errors import ArtifactError, BusyError, InputError, StorageError, storage_errors

PARTIAL = ".partial"


@contextmanager
def atomic_write(path: Path | str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a temporary neighbour of `path`; renames it over `path` when the block ends without an error."""
    path = Path(path)
    with storage_errors(path):
        temporary = _temporary(path)
        try:
            with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Gives an empty folder to fill; it becomes `path`, replacing what stood there, when the block ends.

    The swap renames the old folder aside first, so the path is missing for a moment but never half-written;
    `recover_folder` puts the old one back if a process died in that moment.
    """
    path = Path(path)
    with storage_errors(path):
        recover_folder(path)
        temporary = _temporary(path)
        temporary.mkdir()
        try:
            yield temporary
            for entry in (*temporary.rglob("*"), temporary):
                if entry.is_file() or entry.is_dir():
                    _sync(entry)
            move_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """This thread's temporary neighbour of `path`; those that killed processes have left are deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.\d+{re.escape(PARTIAL)}")
    for neighbour in path.parent.iterdir():
        if (match := names.fullmatch(neighbour.name)) and not _is_alive(int(match[1])):
            _delete(neighbour)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}{PARTIAL}")
    _delete(temporary)
    return temporary


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's process, or a name that is not ours
    return True


def _delete(path: Path) -> None:
    """Deletes litter; that some of it cannot be deleted is no reason not to write."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def move_folder(source: Path, target: Path) -> None:
    """Renames `source` to `target`, replacing a folder that stands there."""
    old = _aside(target)
    if target.exists():
        target.rename(old)
    source.rename(target)
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Finishes or undoes a `move_folder` that was cut off between its two renames."""
    old = _aside(path)
    if old.exists():
        if path.exists():
            shutil.rmtree(old)
        else:
            old.rename(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: Path | str, data: Any) -> None:
    write_text(path, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path | str) -> Any:
    """Parses a JSON file; a missing or damaged one is an `ArtifactError` that names it."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        _refuse_unreadable(path, error)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(
            f"{path} is not valid JSON: {error}.", hint="Delete it and run the command that wrote it again."
        ) from error


def _refuse_unreadable(path: Path, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise ArtifactError(f"There is no file {path}.") from error
    raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


def write_jsonl(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes one JSON object a line, atomically; returns how many."""
    count = 0
    with atomic_write(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yields the objects of a JSON-lines file; a damaged line is an error that gives its number."""
    path = Path(path)
    try:
        file = path.open("rb")
    except OSError as error:
        _refuse_unreadable(path, error)
    with file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise ArtifactError(f"{path}, line {number}: not valid JSON: {error}.") from error
            if not isinstance(row, dict):
                raise ArtifactError(f"{path}, line {number}: {row!r} is not a JSON object.")
            yield row


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hash_json(data: Any) -> str:
    """Hash of a JSON value, independent of the order of keys."""
    return hash_bytes(json.dumps(data, sort_keys=True, ensure_ascii=False, default=str).encode())


def hash_file(path: Path | str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        _refuse_unreadable(Path(path), error)


def hash_folder(path: Path | str, leave_out: Iterable[str] = ()) -> str:
    """Hash of the relative names and contents of all files below a folder (or of a file alone)."""
    path = Path(path)
    if path.is_file():
        return hash_file(path)
    leave_out = set(leave_out)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in leave_out)
    return hash_json([[p.relative_to(path).as_posix(), hash_file(p)] for p in files])


def safe_join(root: Path | str, relative: str) -> Path:
    """`root/relative`, refusing a name that leads out of `root`."""
    root = Path(root).resolve()
    try:
        path = (root / relative).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null byte, or links in a circle
        raise InputError(f"{relative!r} cannot be a file's name: {error}.") from error
    if not path.is_relative_to(root):
        raise InputError(f"The name {relative!r} leads out of the folder {root}.", hint="Use a name inside it.")
    return path


def require_space(path: Path | str, needed: int) -> None:
    """Refuses work that will need `needed` bytes at `path` where fewer are free."""
    folder = Path(path)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{path} needs {format_bytes(needed)} and its disk has {format_bytes(free)} free.",
            hint="Free some space, or choose another folder with --out.",
        )


def format_bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


@contextmanager
def folder_lock(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Holds `folder/.lock` while the block runs, so that two processes cannot write one folder.

    The kernel frees the lock when the process ends, however it ends.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    with file:
        deadline = time.monotonic() + wait
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"Another process is working in {folder}.", hint="Wait for it to end, or choose another --out."
                )
            time.sleep(0.1)
        yield


def _try_lock(file: IO[Any]) -> bool:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
