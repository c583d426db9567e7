"""Bodies of evaluations."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.eval import BenchmarkBody, RunEvalBody

CANDIDATE = {"type": "model", "model": "m"}


def test_a_configuration_with_and_without_its_options() -> None:
    body = RunEvalBody.model_validate(
        {"benchmark_config": {"eval_candidate": CANDIDATE, "scoring_params": {"f": None}}}
    )
    assert body.benchmark_config.num_examples is None
    assert body.benchmark_config.eval_candidate.model == "m"


@pytest.mark.parametrize(
    "change", [{"num_examples": 0}, {"eval_candidate": {"type": "agent", "model": "m"}}, {"eval_candidate": {}}]
)
def test_broken_configurations(change: dict) -> None:
    with pytest.raises(ValidationError):
        RunEvalBody.model_validate({"benchmark_config": {"eval_candidate": CANDIDATE} | change})


def test_a_benchmark_needs_a_scoring_function() -> None:
    with pytest.raises(ValidationError):
        BenchmarkBody(benchmark_id="b", dataset_id="d", scoring_functions=[])
