"""Bodies of datasets."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from puna.stack.wire.base import Wire


class Source(Wire):
    """Where a dataset's rows come from: they are sent, or stand behind a URI."""

    type: Literal["uri", "rows"] | None = None
    uri: str | None = None
    rows: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def one_of_both(self) -> Source:
        if (self.uri is None) == (self.rows is None):
            raise ValueError("give either a uri or rows")
        return self


class DatasetBody(Wire):
    """Registers a dataset."""

    purpose: Literal["post-training/messages", "eval/question-answer", "eval/messages-answer"]
    source: Source
    dataset_id: str | None = None
    metadata: dict[str, Any] | None = None


class AppendBody(Wire):
    """Rows to be added."""

    rows: list[dict[str, Any]]
