"""Scoring functions that need no model: a row with a generated and an expected answer -> a score between 0 and 1.

Each is a `Scorer`: it takes a row and the function's parameters. What a row lacks is an error that names it, not a 0.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from puna.base.errors import InputError
from puna.evals.calls import expected_calls, match_text
from puna.evals.choices import LETTER_REGEXES
from puna.stack.errors import invalid
from puna.stack.safety.matching import MATCHER

Row = Mapping[str, Any]
Scorer = Callable[[Row, Mapping[str, Any]], dict[str, Any]]

AGGREGATIONS = ("average", "weighted_average", "median", "categorical_count", "accuracy")


def text_of(row: Row, name: str) -> str:
    """A column of a row as text.

    Raises:
        ApiError: 400 where the row has no such column.
    """
    if row.get(name) is None:
        raise invalid(f"A row has no {name!r}; it has {', '.join(sorted(map(str, row))) or 'nothing'}.", "input_rows")
    value = row[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def equality(row: Row, params: Mapping[str, Any]) -> dict[str, Any]:
    """1 where the generated answer is the expected one, blanks around both aside."""
    del params
    return {"score": float(text_of(row, "generated_answer").strip() == text_of(row, "expected_answer").strip())}


def substring(row: Row, params: Mapping[str, Any]) -> dict[str, Any]:
    """1 where the expected answer occurs in the generated one."""
    del params
    return {"score": float(text_of(row, "expected_answer").strip() in text_of(row, "generated_answer"))}


def regex_parser(row: Row, params: Mapping[str, Any]) -> dict[str, Any]:
    """1 where what the first pattern that matches finds in the generated answer is the expected one."""
    patterns = params.get("parsing_regexes") or LETTER_REGEXES
    expected = text_of(row, "expected_answer").strip()
    try:
        found = MATCHER.search(patterns, text_of(row, "generated_answer"))
    except TimeoutError as error:
        raise invalid(f"The regexes cannot be matched: {error}.", "parsing_regexes") from error
    match = next((match for match in found if match is not None), None)
    parsed = next((group for group in [*(match or [])[1:], *(match or [])[:1]] if group is not None), None)
    return {"score": float(parsed is not None and parsed.strip() == expected), "parsed_answer": parsed}


def tool_calls(row: Row, params: Mapping[str, Any]) -> dict[str, Any]:
    """1 where the generated calls are the expected ones, in any order (as the Berkeley leaderboard judges them)."""
    del params
    value = row.get("expected_answer", row.get("ground_truth"))
    try:
        expected = expected_calls(json.loads(value) if isinstance(value, str) else value)
    except json.JSONDecodeError as error:
        raise invalid(f"expected_answer is not JSON: {error}.", "input_rows") from error
    except InputError as error:
        raise invalid(error.message, "input_rows") from error
    reason = match_text(text_of(row, "generated_answer"), expected)
    return {"score": 0.0, "reason": reason} if reason else {"score": 1.0}


SCORERS: dict[str, Scorer] = {
    "basic::equality": equality,
    "basic::subset_of": substring,
    "basic::regex_parser_multiple_choice_answer": regex_parser,
    "basic::bfcl": tool_calls,
}


def aggregate(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """What the scores of many rows come to, by aggregation; rows without a score are left out, and counted."""
    scores = [row["score"] for row in rows if row.get("score") is not None]
    numbers = [float(score) for score in scores if isinstance(score, (int, float))]
    results: dict[str, Any] = {}
    for name in names:
        if name == "accuracy":
            correct = sum(number == 1.0 for number in numbers)
            share = correct / len(rows) if rows else 0.0
            results[name] = {"accuracy": share, "num_correct": float(correct), "num_total": len(rows)}
        elif name == "average":
            results[name] = {"average": statistics.fmean(numbers) if numbers else None, "count": len(numbers)}
        elif name == "weighted_average":
            weights = [float(row.get("weight", 1.0)) for row in rows if isinstance(row.get("score"), (int, float))]
            total = sum(weights)
            mean = sum(n * w for n, w in zip(numbers, weights, strict=True)) / total if total else None
            results[name] = {"weighted_average": mean, "count": len(numbers)}
        elif name == "median":
            results[name] = {"median": statistics.median(numbers) if numbers else None, "count": len(numbers)}
        elif name == "categorical_count":
            results[name] = {"categorical_count": dict(Counter(str(score) for score in scores))}
        else:
            raise invalid(
                f"There is no aggregation {name!r}. Known: {', '.join(AGGREGATIONS)}.", "aggregation_functions"
            )
    return results
