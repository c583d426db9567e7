"""Steps are numbered without gaps, and a database takes those that it has not taken."""

from __future__ import annotations

import pytest

from puna.base.errors import VersionError
from puna.stack.state.migrations import Step, migrate, steps


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_steps_are_numbered_from_one_without_gaps(dialect: str) -> None:
    found = steps(dialect)
    assert [step.number for step in found] == list(range(1, len(found) + 1))
    assert all(step.statements for step in found)


def test_both_databases_take_the_same_steps() -> None:
    assert [step.name for step in steps("sqlite")] == [step.name for step in steps("postgres")]


def test_only_new_steps_are_taken_in_order() -> None:
    known = [Step(1, "0001_a.sql", ["A"]), Step(2, "0002_b.sql", ["B", "C"]), Step(3, "0003_d.sql", ["D"])]
    ran: list[str] = []
    assert migrate("here", 1, known, ran.append) == 3
    assert ran == ["B", "C", "D"]
    assert migrate("here", 3, known, ran.append) == 3
    assert ran == ["B", "C", "D"]


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(VersionError, match="here was written by a newer Puna"):
        migrate("here", 2, [Step(1, "0001_a.sql", ["A"])], lambda statement: None)
