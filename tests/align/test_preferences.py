from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from puna.align import preferences
from puna.align.preferences import META_STRENGTHS, fault, read_preferences, write_preferences
from puna.base.errors import ArtifactError, InputError
from puna.core.chat import Message, ToolCall
from puna.core.preference import Preference

SYSTEM, ASK = Message("system", "Be brief."), Message("user", "2 + 2?")
FOUR, FIVE = Message("assistant", "4"), Message("assistant", "5")
CALL = Message("assistant", tool_calls=(ToolCall("add", {"a": 2}, "c1"),), end_of_turn=False)
RESULT = Message("tool", "4", tool_call_id="c1")


@pytest.mark.parametrize(
    ("prompt", "chosen"),
    [
        ([ASK], [FOUR]),
        ([SYSTEM, ASK], [FOUR]),
        ([ASK, FIVE, ASK], [FOUR]),
        ([ASK], [CALL, RESULT, FOUR]),
        ([ASK, CALL, RESULT], [FOUR]),
        ([ASK, CALL, RESULT, Message("tool", "4")], [FOUR]),
        ([ASK], [CALL]),
    ],
)
def test_sound_preferences_have_no_fault(prompt: Sequence[Message], chosen: Sequence[Message]) -> None:
    assert fault(Preference(tuple(prompt), tuple(chosen), (FIVE,))) == ""


@pytest.mark.parametrize(
    ("prompt", "chosen", "edited", "reason"),
    [
        ([], [FOUR], [], preferences.EMPTY_PROMPT),
        ([ASK], [], [], preferences.EMPTY_ANSWER),
        ([ASK], [Message("assistant", " \n")], [], preferences.EMPTY_ANSWER),
        ([ASK], [FIVE], [], preferences.EQUAL),
        ([ASK], [FOUR], [FOUR], preferences.EQUAL),
        ([ASK, FIVE], [FOUR], [], preferences.ROLES),
        ([ASK, ASK], [FOUR], [], preferences.ROLES),
        ([ASK, SYSTEM, ASK], [FOUR], [], preferences.ROLES),
        ([FIVE, ASK], [FOUR], [], preferences.ROLES),
        ([ASK], [Message("user", "4")], [], preferences.ROLES),
        ([ASK], [FOUR, FOUR], [], preferences.ROLES),
        ([ASK], [CALL, RESULT], [], preferences.ROLES),
        ([ASK, RESULT], [FOUR], [], preferences.UNASKED),
        ([ASK, CALL, Message("tool", "4", tool_call_id="c2")], [FOUR], [], preferences.UNASKED),
        ([ASK], [FOUR, RESULT, FOUR], [], preferences.UNASKED),
    ],
)
def test_each_fault_has_its_name(
    prompt: Sequence[Message], chosen: Sequence[Message], edited: Sequence[Message], reason: str
) -> None:
    assert fault(Preference(tuple(prompt), tuple(chosen), (FIVE,), tuple(edited))) == reason


def test_what_is_left_out_is_counted_with_its_first_place(tmp_path: Path) -> None:
    good = Preference((ASK,), (FOUR,), (FIVE,), strength="better")
    weak = Preference((ASK,), (FOUR,), (FIVE,), strength="slightly")
    equal = Preference((ASK,), (FOUR,), (FOUR,))
    rows = [good.to_json(), equal.to_json(), {"chosen": "a"}, weak.to_json(), equal.to_json()]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept, report = read_preferences(path)
    assert (kept, report.read, report.kept) == ([good, weak], 5, 2)
    assert report.left_out == {preferences.EQUAL: 2, preferences.NO_PREFERENCE: 1}
    assert report.first[preferences.EQUAL][0] == 2
    assert "2 of 5 preferences kept; 2 left out, the answers are equal (first: number 2)" in report.text()
    assert "chosen 'a'" in report.text()
    kept, report = read_preferences(path, META_STRENGTHS)
    assert kept == [good]
    assert report.left_out[preferences.WEAK] == 1


def test_a_file_without_a_sound_preference_is_refused(tmp_path: Path) -> None:
    assert write_preferences(tmp_path / "a.jsonl", [Preference((ASK,), (FOUR,), (FOUR,))]) == 1
    with pytest.raises(InputError, match="0 of 1 preferences kept; 1 left out, the answers are equal"):
        read_preferences(tmp_path / "a.jsonl")
    with pytest.raises(ArtifactError, match="no file"):
        read_preferences(tmp_path / "b.jsonl")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    pairs = [Preference((SYSTEM, ASK), (CALL, RESULT, FOUR), (FIVE,), strength="significantly")]
    write_preferences(tmp_path / "a.jsonl", pairs)
    assert read_preferences(tmp_path / "a.jsonl")[0] == pairs
