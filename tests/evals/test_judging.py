from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from puna.core.chat import Message
from puna.core.verdict import Task
from puna.evals.judging import judge_pairs, preference_in
from puna.testing import ScriptedChatModel

TASKS = [Task(str(i), f"question {i}?", "") for i in range(8)]


def answers_in(messages: Sequence[Message]) -> tuple[str, str]:
    found = re.search(r"\[Answer A\]\n(.*)\n\n\[Answer B\]\n(.*)\n\nExplain", messages[-1].content)
    assert found
    return found[1], found[2]


def longest(messages: Sequence[Message]) -> str:
    one, two = answers_in(messages)
    return "[[C]]" if len(one) == len(two) else f"So it is. [[{'A' if len(one) > len(two) else 'B'}]]"


def test_a_judge_that_looks_at_the_answers_decides() -> None:
    scores = judge_pairs(ScriptedChatModel(longest), TASKS, ["a"] * 8, ["aa"] * 7 + ["b"])
    assert (scores.second.value, scores.consistent) == (pytest.approx(7.5 / 8), 1.0)
    assert [one.preference for one in scores.judgements] == ["second"] * 7 + ["tie"]
    assert scores.p_value == pytest.approx(2 / 2**7)


def test_a_judge_that_looks_at_the_place_decides_nothing() -> None:
    scores = judge_pairs(ScriptedChatModel(lambda messages: "[[A]]"), TASKS, ["a"] * 8, ["aa"] * 8)
    assert (scores.second.value, scores.consistent, scores.p_value) == (0.5, 0.0, 1.0)
    assert scores.judgements[0].orders == ("first", "second")


def test_answers_may_hold_braces() -> None:
    model = ScriptedChatModel(longest)
    judge_pairs(model, TASKS[:1], ["{second} {0}"], ["{first}"])
    assert answers_in(model.asked[0].messages) == ("{second} {0}", "{first}")


@pytest.mark.parametrize(
    ("text", "swapped", "preference"),
    [
        ("[[A]]", False, "first"), ("[[A]]", True, "second"), ("[[B]]", False, "second"), ("[[B]]", True, "first"),
        ("[[A]] no, [[C]]", False, "tie"), ("A", False, None), ("", True, None),
    ],
)  # fmt: skip
def test_the_last_mark_counts(text: str, swapped: bool, preference: str | None) -> None:
    assert preference_in(text, swapped) == preference


def test_a_judge_that_says_nothing_is_neither_consistent_nor_for_anyone() -> None:
    scores = judge_pairs(ScriptedChatModel(lambda messages: "Hm."), TASKS, ["a"] * 8, ["b"] * 8)
    assert (scores.second.value, scores.consistent) == (0.5, 0.0)
    assert judge_pairs(ScriptedChatModel([]), [], [], []).second.count == 0
