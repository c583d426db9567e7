"""What training stages share."""

from __future__ import annotations

import pytest
import torch

from puna.base.errors import ConfigError
from puna.recipes.training import TrainingConfig, held_out_loss
from puna.testing import tiny_model
from puna.train.objectives import NextToken


@pytest.mark.parametrize(
    ("tokens", "max_epochs", "available", "expected"),
    [(8192 * 10, 100.0, 10**9, 10), (10**9, 2.0, 8192 * 5, 10), (1, 1.0, 10**6, 1), (8192 * 10, 0.5, 8192 * 4, 2)],
)
def test_steps_follow_tokens_and_epochs(tokens: int, max_epochs: float, available: int, expected: int) -> None:
    assert TrainingConfig(tokens=tokens, max_epochs=max_epochs).steps(available) == expected


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"max_epochs": 0.0}, {"context_length": 1}, {"batch_tokens": 100}])
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError):
        TrainingConfig(**settings)


def test_train_config_takes_every_setting() -> None:
    config = TrainingConfig(grad_clip=0.5, dtype="float32", recompute=True, validate_every=7, checkpoint_seconds=3.0)
    made = config.train_config(12)
    assert (made.steps, made.grad_clip, made.dtype, made.recompute) == (12, 0.5, "float32", True)
    assert (made.validate_every, made.checkpoint_seconds) == (7, 3.0)


def test_held_out_loss_is_the_mean_over_learnt_tokens() -> None:
    import numpy as np

    from puna.core.tokens import Batch

    model = tiny_model()
    generator = np.random.default_rng(0)
    ids = generator.integers(0, model.config.vocab_size, (2, 9))
    mask = generator.random((2, 8)) < 0.5
    positions = np.tile(np.arange(8), (2, 1))
    batch = Batch(ids[:, :-1].copy(), ids[:, 1:].copy(), positions, np.zeros_like(positions), mask)

    class Source:
        def micro_batches(self, step: int) -> list[Batch]:
            return [batch.map(lambda a: a[:1]), batch.map(lambda a: a[1:])]

    with torch.no_grad():
        found = held_out_loss(NextToken(), Source(), 1)(model)["held_out_loss"]
        logprobs = model(torch.from_numpy(ids[:, :-1])).double().log_softmax(-1)
    wanted = -logprobs.gather(2, torch.from_numpy(ids[:, 1:, None])).squeeze(2)[torch.from_numpy(mask)].mean()
    assert found == pytest.approx(float(wanted), abs=1e-5)
