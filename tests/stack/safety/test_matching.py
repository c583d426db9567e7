"""Patterns of other people."""

from __future__ import annotations

import time

import pytest

from puna.stack.safety.matching import Matcher, find


@pytest.fixture
def matcher():
    matcher = Matcher(1.0)
    yield matcher
    matcher.close()


def test_the_first_match_of_each_pattern_and_its_groups(matcher: Matcher) -> None:
    assert matcher.search([r"(\w)(x)?b", "no"], "a ab") == [["ab", "a", None], None]
    assert matcher.search(["AB"], "ab") == [None]
    assert matcher.search(["AB"], "ab", True) == [["ab"]]


def test_the_child_finds_what_the_same_process_finds(matcher: Matcher) -> None:
    text = "näive \n line \u2028 two" * 1000
    patterns = [r"\s+line", "e", "^$", "(?m)^ line"]
    assert matcher.search(patterns, text) == find(patterns, text)


def test_a_pattern_that_works_for_ever_is_ended_and_the_next_is_served(matcher: Matcher) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="longer than 1 s"):
        matcher.search(["(a+)+$"], "a" * 60 + "b")
    assert time.monotonic() - start < 5
    assert matcher.search(["b"], "ab") == [["b"]]


def test_a_child_that_dies_is_a_timeout_and_the_next_is_served(matcher: Matcher) -> None:
    with pytest.raises(TimeoutError):
        matcher.search(["("], "text")
    assert matcher.search(["t"], "text") == [["t"]]
