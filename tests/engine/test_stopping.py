from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.engine.stopping import StopStrings

TEXTS = st.text("abé\n", max_size=30)
STOPS = st.lists(st.text("abé\n", min_size=1, max_size=4), min_size=1, max_size=3)


def certain(text: str, stops: list[str]) -> str:
    """What may be passed on once `text` is known, and no more of the stream: by definition, at leisure."""
    for end in range(len(text) + 1):
        if complete := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, complete))]
    starts = [text[at:] for at in range(len(text)) if any(stop.startswith(text[at:]) for stop in stops)]
    return text.removesuffix(starts[0]) if starts else text


def pieces(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@given(TEXTS, STOPS, st.data())
def test_exactly_what_is_certain_is_passed_on_however_the_text_is_cut(text: str, stops: list[str], data: st.DataObject):
    strings, taken = StopStrings(stops), ""
    passed = ""
    for piece in pieces(text, data):
        taken += piece
        passed += strings.feed(piece)
        assert passed == strings.text == certain(taken, stops)
        assert strings.found == any(stop in taken for stop in stops)
    passed += strings.flush()
    assert passed == strings.text == (certain(text, stops) if strings.found else text)


@given(TEXTS, STOPS, TEXTS)
def test_nothing_is_passed_on_after_a_stop_string(text: str, stops: list[str], more: str):
    strings = StopStrings(stops)
    strings.feed(text + stops[0])
    before = strings.text
    assert (strings.feed(more), strings.flush(), strings.text) == ("", "", before)


def test_the_string_that_is_complete_first_counts_not_the_one_that_begins_first():
    for cut in range(5):
        strings = StopStrings(["abcd", "bc"])
        assert strings.feed("abcd"[:cut]) + strings.feed("abcd"[cut:]) == "a"


def test_of_strings_that_end_together_the_longest_counts():
    strings = StopStrings(["END", "THE END"])
    assert strings.feed("That is THE END.") == "That is "


@pytest.mark.parametrize("stops", [[], [""], ["", ""]])
def test_without_stop_strings_all_text_passes_at_once(stops: list[str]):
    strings = StopStrings(stops)
    assert [strings.feed("a"), strings.feed(""), strings.feed("b"), strings.flush()] == ["a", "", "b", ""]
    assert (strings.text, strings.found) == ("ab", False)


def test_a_beginning_that_comes_to_nothing_is_let_go():
    strings = StopStrings(["\n\nUser:"])
    assert [strings.feed(p) for p in ("Yes.\n", "\nUs", "ed", "\n\nUser", ":")] == ["Yes.", "", "\n\nUsed", "", ""]
    assert strings.text == "Yes.\n\nUsed"
    assert strings.found
