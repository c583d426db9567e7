from __future__ import annotations

import json
from typing import Any

import pytest

from puna.base.errors import InputError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.preference import Preference


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


ASKED = Message("user", "What is 2 + 2?")
FOUR, FIVE, BOTH = (Message("assistant", text) for text in ("4", "5", "It is 4."))


def test_what_is_written_is_read_again() -> None:
    called = (Message("assistant", tool_calls=(ToolCall("add", {"a": 2, "b": 2}, "1"),), end_of_turn=False),)
    whole = Preference((ASKED,), (FOUR,), called, (BOTH,), "slightly", (ToolSpec("add"),), {"source": "a"})
    for preference in (whole, Preference((ASKED,), (FOUR,), (FIVE,))):
        assert Preference.from_json(json.loads(json.dumps(preference.to_json()))) == preference


def test_answers_are_ranked_from_the_edited_one_down() -> None:
    assert Preference((ASKED,), (FOUR,), (FIVE,)).ranking == ((FOUR,), (FIVE,))
    assert Preference((ASKED,), (FOUR,), (FIVE,), (BOTH,)).ranking == ((BOTH,), (FOUR,), (FIVE,))


@pytest.mark.parametrize("prompt", [{}, {"prompt": "What is 2 + 2?"}, {"prompt": None}])
def test_whole_conversations_are_parted_where_they_differ(prompt: dict[str, Any]) -> None:
    asked = [said("system", "Be brief."), said("user", "What is 2 + 2?")]
    row = {**prompt, "chosen": [*asked, said("assistant", "4")], "rejected": [*asked, said("assistant", "5")]}
    expected = Preference((Message("system", "Be brief."), ASKED), (FOUR,), (FIVE,))
    assert Preference.from_json(row) == expected
    row["edited"] = [*asked, said("assistant", "It is 4.")]
    assert Preference.from_json(row).edited == (BOTH,)


def test_equal_conversations_still_have_an_answer_each() -> None:
    same = [said("user", "What is 2 + 2?"), said("assistant", "4")]
    assert Preference.from_json({"chosen": same, "rejected": same}) == Preference((ASKED,), (FOUR,), (FOUR,))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("significantly better", "significantly"), ("Better", "better"), ("marginally better", "negligibly"), ("", "")],
)
def test_strengths_have_the_names_of_both_papers(name: str, expected: str) -> None:
    row = {"prompt": [said("user", "a")], "chosen": [said("assistant", "b")], "rejected": [said("assistant", "c")]}
    assert Preference.from_json({**row, "strength": name}).strength == expected


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"chosen": "4"}, "chosen '4'"),
        ({"rejected": None}, "rejected None"),
        ({"prompt": 3}, "prompt 3"),
        ({"edited": "x"}, "edited 'x'"),
        ({"strength": "hugely"}, "'hugely'; the strengths are significantly, better"),
        ({"chosen": [{"role": "poet", "content": ""}]}, "role 'poet'"),
    ],
)
def test_what_is_no_preference_is_refused_with_what_it_has(change: dict[str, Any], complaint: str) -> None:
    row = {"prompt": [said("user", "a")], "chosen": [said("assistant", "b")], "rejected": [said("assistant", "c")]}
    with pytest.raises(InputError, match=complaint.replace("+", "\\+")):
        Preference.from_json(row | change)
