"""Bodies of fine-tuning jobs and of synthetic data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from puna.stack.wire.base import Wire


class DataConfig(Wire):
    """Which rows are learnt."""

    dataset_id: str
    batch_size: int = Field(1, ge=1)
    shuffle: bool = True
    data_format: Literal["instruct", "dialog"] = "dialog"
    validation_dataset_id: str | None = None
    packed: bool | None = None
    train_on_input: bool | None = None


class OptimizerConfig(Wire):
    """How weights are moved."""

    optimizer_type: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    num_warmup_steps: int = Field(0, ge=0)


class TrainingConfig(Wire):
    """A training."""

    n_epochs: int = Field(ge=1)
    max_steps_per_epoch: int = Field(0, ge=0)
    gradient_accumulation_steps: int = Field(1, ge=1)
    max_validation_steps: int | None = None
    data_config: DataConfig
    optimizer_config: OptimizerConfig | None = None
    efficiency_config: dict[str, Any] | None = None
    dtype: str | None = None
    max_length: int | None = Field(None, ge=2)  # tokens of a row; our own


class FinetuneBody(Wire):
    """Starts supervised fine-tuning."""

    job_uuid: str
    training_config: TrainingConfig
    hyperparam_search_config: dict[str, Any] | None = None
    logger_config: dict[str, Any] | None = None
    model: str | None = None
    checkpoint_dir: str | None = None
    algorithm_config: dict[str, Any] | None = None


class GenerateBody(Wire):
    """Asks for synthetic data."""

    dialogs: list[dict[str, Any] | list[dict[str, Any]]] = Field(min_length=1)
    filtering_function: str = "none"
    model: str | None = None
    top_k: int | None = Field(None, ge=1)  # how many the filter top_k keeps; our own
    top_p: float | None = Field(None, gt=0, le=1)  # the share of scores that top_p keeps; our own
    seed: int = 0


class CancelBody(Wire):
    """Ends a job; the id may stand in the query instead."""

    job_uuid: str
