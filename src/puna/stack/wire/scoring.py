"""Bodies of scoring and scoring functions."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from puna.stack.wire.base import Wire


class ScoringFunctionBody(Wire):
    """Registers a scoring function: a built-in one with parameters of its own."""

    scoring_fn_id: str
    description: str = ""
    return_type: dict[str, Any] | None = None
    provider_id: str | None = None
    provider_scoring_fn_id: str | None = None
    params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class ScoreBody(Wire):
    """Scores rows."""

    input_rows: list[dict[str, Any]]
    scoring_functions: dict[str, dict[str, Any] | None] = Field(min_length=1)


class ScoreBatchBody(Wire):
    """Scores the rows of a dataset."""

    dataset_id: str
    scoring_functions: dict[str, dict[str, Any] | None] = Field(min_length=1)
    save_results_dataset: bool = False
