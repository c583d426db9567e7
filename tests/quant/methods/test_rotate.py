"""Rotation leaves the float model as it was, and takes the outliers out of its residual stream."""

from __future__ import annotations

import pytest
import torch

from puna.quant.calibrate import Calibration
from puna.quant.methods.rotate import ROTATION, rotate
from puna.testing import tiny_model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shape", [{}, {"hidden_size": 48, "num_attention_heads": 6, "num_key_value_heads": 3}])
def test_logits_are_unchanged(tied: bool, shape: dict[str, int], ids: torch.Tensor) -> None:
    model = tiny_model(tie_word_embeddings=tied, **shape)
    before = model(ids).detach()
    rotate(model)
    torch.testing.assert_close(model(ids), before, rtol=0, atol=1e-4 * float(before.abs().max()))
    assert not model.config.tie_word_embeddings
    assert all(bool((p == 1).all()) for p in model.parameters() if p.ndim == 1)


def test_hidden_states_are_the_old_ones_rotated(random_texts: Calibration) -> None:
    model, old = tiny_model(), tiny_model()
    q_DD = rotate(model, seed=5)
    assert torch.equal(getattr(model, ROTATION), q_DD)
    assert ROTATION not in model.state_dict()
    ids = random_texts.rows[0].ids
    torch.testing.assert_close(model.embed_tokens(ids), old.embed_tokens(ids) @ q_DD, rtol=1e-4, atol=1e-4)


def test_an_outlier_channel_is_gone(ids: torch.Tensor) -> None:
    model = tiny_model().requires_grad_(False)
    model.embed_tokens.weight[:, 3] *= 100

    def peak() -> float:
        x = model.embed_tokens(ids)
        return float((x.abs().amax(-1) / x.square().mean(-1).sqrt()).mean())

    before = peak()
    rotate(model)
    assert before > 5
    assert peak() < 2.5
