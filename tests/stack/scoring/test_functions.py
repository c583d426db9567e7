"""Scoring functions without a model."""

from __future__ import annotations

import json

import pytest

from puna.stack.errors import ApiError
from puna.stack.scoring.functions import SCORERS, aggregate, equality, regex_parser, substring, tool_calls


def row(generated: object, expected: object) -> dict:
    return {"generated_answer": generated, "expected_answer": expected}


def test_equality_and_substring() -> None:
    assert equality(row(" Paris\n", "Paris"), {})["score"] == 1.0
    assert equality(row("It is Paris.", "Paris"), {})["score"] == 0.0
    assert substring(row("It is Paris.", "Paris"), {})["score"] == 1.0
    assert substring(row("It is London.", "Paris"), {})["score"] == 0.0


@pytest.mark.parametrize("text", ["The answer is B.", "B", "(B) because", "Answer: **B**", r"So \boxed{B}"])
def test_the_letter_of_a_choice_is_found_in_common_phrasings(text: str) -> None:
    assert regex_parser(row(text, "B"), {})["score"] == 1.0
    assert regex_parser(row(text, "C"), {})["score"] == 0.0


def test_own_regexes_replace_the_built_in_ones() -> None:
    params = {"parsing_regexes": [r"#(\d+)", r"(\d+)"]}
    assert regex_parser(row("3 then #42", "42"), params) == {"score": 1.0, "parsed_answer": "42"}
    assert regex_parser(row("none", "42"), params) == {"score": 0.0, "parsed_answer": None}


def test_a_regex_that_never_ends_is_refused() -> None:
    with pytest.raises(ApiError, match="longer than"):
        regex_parser(row("a" * 60 + "b", "x"), {"parsing_regexes": ["(a+)+$"]})


CALL = {"name": "add", "arguments": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("generated", "expected", "score"),
    [
        (json.dumps(CALL), [CALL], 1.0),
        ("[add(a=1, b=2)]", [{"add": {"a": [1, 2], "b": [2]}}], 1.0),
        ("[add(a=3, b=2)]", [{"add": {"a": [1, 2], "b": [2]}}], 0.0),
        ("[add(a=1)]", [{"add": {"a": [1], "b": [2, ""]}}], 1.0),
        ("[add(a=1)]", [{"add": {"a": [1], "b": [2]}}], 0.0),
        ("[add(a=1, b=2, c=3)]", [CALL], 0.0),
        ("[add(a=1, b=2), add(a=1, b=2)]", [CALL], 0.0),
        ("[b(x='Y'), a(x=1)]", [{"a": {"x": [1]}}, {"b": {"x": ["y"]}}], 1.0),
        ("[a(x=True)]", [{"a": {"x": [1]}}], 0.0),
        ("I would add them.", [CALL], 0.0),
    ],
)
def test_tool_calls_are_matched_by_name_and_allowed_values(generated: str, expected: list, score: float) -> None:
    assert tool_calls(row(generated, json.dumps(expected)), {})["score"] == score
    assert tool_calls(row(generated, expected), {})["score"] == score


@pytest.mark.parametrize("scorer", SCORERS.values())
def test_a_row_without_its_columns_is_an_error_and_no_zero(scorer) -> None:
    with pytest.raises(ApiError) as refused:
        scorer({"question": "q"}, {})
    assert refused.value.status == 400


def test_aggregations() -> None:
    rows = [{"score": 1.0, "weight": 3}, {"score": 0.0}, {"score": None}, {"score": 1.0}]
    found = aggregate(rows, ["accuracy", "average", "median", "weighted_average", "categorical_count"])
    assert found["accuracy"] == {"accuracy": 0.5, "num_correct": 2.0, "num_total": 4}
    assert found["average"] == {"average": pytest.approx(2 / 3), "count": 3}
    assert found["median"] == {"median": 1.0, "count": 3}
    assert found["weighted_average"]["weighted_average"] == pytest.approx(4 / 5)
    assert found["categorical_count"] == {"categorical_count": {"1.0": 2, "0.0": 1}}
    assert aggregate([], ["average"]) == {"average": {"average": None, "count": 0}}
    with pytest.raises(ApiError, match="no aggregation 'mode'"):
        aggregate(rows, ["mode"])
