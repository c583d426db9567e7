"""Bodies of benchmarks and evaluations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from puna.stack.wire.base import Wire


class BenchmarkBody(Wire):
    """Registers a benchmark."""

    benchmark_id: str
    dataset_id: str
    scoring_functions: list[str] = Field(min_length=1)
    provider_id: str | None = None
    provider_benchmark_id: str | None = None
    metadata: dict[str, Any] | None = None


class Candidate(Wire):
    """The model that is evaluated."""

    type: Literal["model"] = "model"
    model: str
    sampling_params: dict[str, Any] | None = None
    system_message: dict[str, Any] | None = None


class BenchmarkConfig(Wire):
    """How a benchmark is run."""

    eval_candidate: Candidate
    scoring_params: dict[str, dict[str, Any] | None] | None = None
    num_examples: int | None = Field(None, ge=1)


class RunEvalBody(Wire):
    """Runs a benchmark as a job."""

    benchmark_config: BenchmarkConfig


class EvaluateRowsBody(Wire):
    """Evaluates rows while the client waits."""

    input_rows: list[dict[str, Any]] = Field(min_length=1)
    scoring_functions: list[str] = Field(min_length=1)
    benchmark_config: BenchmarkConfig
