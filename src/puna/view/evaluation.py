"""The page of an evaluation: scores with their intervals, a comparison where there is one, and samples to read.

It shows what `results.json` and the rows of samples hold and computes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from puna.evals.statistics import Comparison
from puna.view.page import Page, code, definitions, details, paragraph, table, tiles

SHOWN = 20  # samples of a suite; the rows have all

Comparisons = Mapping[str, Mapping[str, Comparison]]


def evaluation_page(
    results: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    against: str = "",
    comparisons: Comparisons | None = None,
) -> str:
    """The page as HTML.

    Args:
        results: what the harness returned.
        samples: rows of each suite.
        against: the model of the comparison.
        comparisons: of this model (second) with that one (first).
    """
    page = Page(f"Evaluation of {results['model']}", "Every score with its 95 % interval.")
    page.add("", tiles(_tiles(results["suites"])))
    header = ("suite", "score", "value", "low", "high", "count")
    page.add("Scores", table(header, _score_rows(results["suites"])))
    if comparisons:
        text = f"Differences from {against}, on the same questions; a p-value below 0.05 is unlikely between equals."
        page.add(f"Beside {against}", paragraph(text), comparison_table(comparisons))
    for name, suite in results["suites"].items():
        parts = []
        if "by_kind" in suite:
            rows = [
                (kind, *_figures(score, one))
                for kind, scores in suite["by_kind"].items()
                for score, one in scores.items()
            ]
            parts.append(details("by kind", table(("kind", *header[1:]), rows)))
        rows = samples.get(name, ())
        parts += [_sample(row) for row in rows[:SHOWN]]
        if len(rows) > SHOWN:
            parts.append(
                paragraph(f"The first {SHOWN} of {len(rows):,} samples; samples-{name}.jsonl has all.", "faint")
            )
        page.add(name, *parts)
    page.add("Settings", definitions({"model": results["model"], **results["config"]}))
    return page.render()


def comparison_table(comparisons: Comparisons) -> str:
    header = ("suite", "score", "first", "second", "difference", "low", "high", "won", "lost", "p", "test")
    rows = [
        (suite, score, c.first, c.second, c.difference, c.low, c.high, c.won, c.lost, c.p_value, c.test)
        for suite, scores in comparisons.items()
        for score, c in scores.items()
    ]
    return table(header, rows)


def _tiles(suites: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The first score of each suite."""
    made = []
    for name, suite in suites.items():
        score, one = next(iter(suite["scores"].items()))
        made.append((name, f"{one['value']:.1%}", f"{score}, {one['low']:.1%} to {one['high']:.1%}"))
    return made


def _score_rows(suites: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(name, *_figures(score, one)) for name, suite in suites.items() for score, one in suite["scores"].items()]


def _figures(score: str, one: Mapping[str, Any]) -> tuple[Any, ...]:
    return score, one["value"], one["low"], one["high"], one["count"]


def _sample(row: Mapping[str, Any]) -> str:
    scores = ", ".join(f"{name} {json.dumps(value)}" for name, value in row["scores"].items())
    told = code(row["prompt"]), paragraph("answer", "faint"), code(row["answer"])
    return details(f"{row['id']}: {scores}", "".join((*told, paragraph("reference", "faint"), code(row["reference"]))))
