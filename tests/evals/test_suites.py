from __future__ import annotations

import pytest

from puna.base.errors import ConfigError
from puna.core.verdict import Task
from puna.evals.suites import Suite, prompt_of

TASKS = tuple(
    Task(str(i), f"Q{i}:", f"A{i}", "even" if i % 2 == 0 else "odd", {"header": "Hello.\n"}) for i in range(6)
)


def test_examples_are_the_first_of_the_questions_kind_and_never_itself() -> None:
    suite = Suite("s", "number", TASKS)
    assert prompt_of(suite, TASKS[0], 0) == "Hello.\nQ0:"
    assert prompt_of(suite, TASKS[0], 2) == "Hello.\nQ2: A2\n\nQ4: A4\n\nQ0:"
    assert prompt_of(suite, TASKS[4], 1) == "Hello.\nQ0: A0\n\nQ4:"


def test_examples_of_their_own_stand_in_place_of_the_suites_questions() -> None:
    suite = Suite("s", "number", TASKS, (Task("x", "QX:", "AX", "odd"),))
    assert prompt_of(suite, TASKS[1], 1) == "Hello.\nQX: AX\n\nQ1:"
    with pytest.raises(ConfigError, match=r"1 examples .* there are 0 of the kind 'even'"):
        prompt_of(suite, TASKS[0], 1)


def test_a_limited_suite_keeps_its_examples() -> None:
    suite = Suite("s", "number", TASKS).limited(1)
    assert len(suite.tasks) == 1 and prompt_of(suite, suite.tasks[0], 2).count("A") == 2
    assert Suite("s", "number", TASKS).limited(None).tasks == TASKS
