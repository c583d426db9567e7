"""Bodies of fine-tuning and synthetic data."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from puna.stack.wire.post_training import CancelBody, FinetuneBody, GenerateBody

TRAINING = {"n_epochs": 1, "data_config": {"dataset_id": "d"}}


def test_what_clients_must_send_is_enough() -> None:
    body = FinetuneBody.model_validate({"job_uuid": "j", "training_config": TRAINING})
    assert body.training_config.data_config.batch_size == 1
    assert body.training_config.max_steps_per_epoch == 0
    assert CancelBody(job_uuid="j").job_uuid == "j"


@pytest.mark.parametrize(
    "change",
    [
        {"n_epochs": 0},
        {"data_config": None},
        {"optimizer_config": {"lr": 0}},
        {"optimizer_config": {"lr": 1, "optimizer_type": "x"}},
    ],
)
def test_numbers_that_make_no_training(change: dict) -> None:
    with pytest.raises(ValidationError):
        FinetuneBody.model_validate({"job_uuid": "j", "training_config": TRAINING | change})


def test_dialogs_are_messages_or_lists_of_them() -> None:
    message = {"role": "user", "content": "x"}
    assert GenerateBody(dialogs=[message, [message]]).filtering_function == "none"
    with pytest.raises(ValidationError):
        GenerateBody(dialogs=[])
    with pytest.raises(ValidationError):
        GenerateBody.model_validate({"dialogs": [message], "top_p": 0})
