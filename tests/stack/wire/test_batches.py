"""The model of a batch accepts what the server sends, and a request only what can be done."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.batches.records import batch_object
from puna.stack.state.store import Record
from puna.stack.wire.batches import Batch, CreateBatch

ASKED = {"input_file_id": "file-1", "endpoint": "/v1/responses", "completion_window": "24h"}


def test_a_batch_object_is_a_batch() -> None:
    counts = {"total": 0, "completed": 0, "failed": 0}
    data = {**ASKED, "status": "validating", "request_counts": counts, "metadata": None, "caller": {"key_id": "secret"}}
    shown = batch_object(Record("batch", "batch_1", "", "", 5.0, 1, data))
    batch = Batch.model_validate(shown)
    assert (batch.id, batch.status, batch.output_file_id) == ("batch_1", "validating", None)
    assert "secret" not in str(shown)


@pytest.mark.parametrize(
    "change",
    [
        {"completion_window": "1h"},
        {"metadata": {str(n): "x" for n in range(17)}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
        {"input_file_id": None},
    ],
)
def test_what_cannot_be_done_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CreateBatch.model_validate({**ASKED, **change})
