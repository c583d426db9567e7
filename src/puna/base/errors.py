"""Every error that Puna raises on purpose, as one tree.

    PunaError
    ├── ConfigError             a setting: unknown, misspelt, of the wrong type, out of range
    ├── InputError              what the user handed in: documents, messages, text
    │   └── ToolCallError       text that was to be a tool call and is not
    ├── ArtifactError           a file that should be readable and is not: missing, truncated, of another kind
    │   ├── CheckpointError     ... of a model
    │   ├── TokenizerError      ... of a tokenizer
    │   └── VersionError        ... written by another major version of Puna
    ├── StorageError            the disk: full, read-only, not permitted
    ├── ResourceError           memory or a device that is not there
    ├── TrainingError           a run that cannot go on: a loss that is not a number
    ├── MissingExtraError       an optional dependency that is not installed
    ├── RemoteError             another server: unreachable, refusing, answering nonsense
    └── BusyError               another process holds what is needed

Each says what happened with the value and the limit, and a `hint` says the way out. The command line prints both
and exits with `exit_code`; a traceback is for defects only.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class PunaError(Exception):
    """An error that the user can act on.

    Args:
        message: what happened, naming the value and the limit.
        hint: the way out, as one sentence.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(PunaError, ValueError):
    exit_code = 2


class InputError(PunaError, ValueError):
    exit_code = 3


class ToolCallError(InputError):
    pass


class ArtifactError(PunaError):
    exit_code = 4


class CheckpointError(ArtifactError):
    pass


class TokenizerError(ArtifactError):
    pass


class VersionError(ArtifactError):
    pass


class StorageError(PunaError, OSError):
    exit_code = 5

    # OSError has a __str__ of its own that would drop the hint.
    __str__ = PunaError.__str__


class ResourceError(PunaError):
    exit_code = 6


class TrainingError(PunaError):
    exit_code = 10


class MissingExtraError(PunaError, ImportError):
    exit_code = 7

    __str__ = PunaError.__str__


class RemoteError(PunaError):
    exit_code = 8


class BusyError(PunaError):
    exit_code = 9


def near(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown `name`: the known one it resembles, or the whole list when it is short."""
    known = sorted(known)
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
        return f"Did you mean {close[0]!r}?"
    if len(known) <= 20:
        return f"Known: {', '.join(known) or 'none'}."
    return f"There are {len(known)} known names, from {known[0]!r} to {known[-1]!r}."


def missing_extra(module: str, extra: str, purpose: str) -> MissingExtraError:
    """The error for an optional dependency that is not installed."""
    return MissingExtraError(
        f"{purpose} needs the package {module!r}, which is not installed.",
        hint=f"Install it with: pip install 'puna[{extra}]'",
    )


_STORAGE_REASONS = {
    errno.ENOSPC: ("the disk is full", "Free some space, or choose another folder."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or choose another folder."),
    errno.EFBIG: ("the file would be larger than this system allows", "Raise the limit on file sizes (ulimit -f)."),
    errno.EACCES: ("permission denied", "Choose a folder that you may write to, or change its permissions."),
    errno.EPERM: ("operation not permitted", "Choose a folder that you may write to."),
    errno.EROFS: ("the file system is read-only", "Choose another folder."),
    errno.EEXIST: ("a part of the path is a file, not a folder", "Choose another path."),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Choose another path."),
    errno.EISDIR: ("the path is a folder, not a file", "Choose another path."),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "Choose a shorter path."),
}


@contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Turns the operating system's refusals to write at `path` into a `StorageError`; other errors pass."""
    try:
        yield
    except OSError as error:
        if isinstance(error, PunaError) or error.errno not in _STORAGE_REASONS:
            raise
        reason, hint = _STORAGE_REASONS[error.errno]
        raise StorageError(f"Cannot write {path}: {reason}.", hint=hint) from error
