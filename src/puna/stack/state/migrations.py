"""The numbered steps that make a database's tables what this version expects: one SQL file of data for each, which is
never changed once it was published. A database remembers the number of the last step that it took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

from puna.base.errors import VersionError


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        number: from 1, without gaps.
        name: of its file.
        statements: SQL, in order.
    """

    number: int
    name: str
    statements: Sequence[str]


def steps(dialect: str) -> list[Step]:
    """All steps for "sqlite" or "postgres", in order."""
    found = []
    folder = resources.files("puna.stack.state") / "assets" / dialect
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        number, _, _ = file.name.partition("_")
        statements = [part.strip() for part in file.read_text(encoding="utf-8").split(";") if part.strip()]
        found.append(Step(int(number), file.name, statements))
    return found


def migrate(where: str, version: int, known: Sequence[Step], execute: Callable[[str], object]) -> int:
    """Takes the steps that a database has not taken yet, within a transaction of the caller's.

    Args:
        where: the database, for messages.
        version: the last step that it took.
        known: all steps.
        execute: runs a statement.

    Returns:
        The number of the last step, which the caller keeps.

    Raises:
        VersionError: a newer Puna took steps that this one does not know.
    """
    newest = known[-1].number
    if version > newest:
        raise VersionError(
            f"{where} was written by a newer Puna (schema {version}; this one knows {newest}).",
            hint="Update Puna, or name another database.",
        )
    for step in known:
        if step.number > version:
            for statement in step.statements:
                execute(statement)
    return newest
