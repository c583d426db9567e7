"""SmoothQuant: the float model is unchanged, and inputs with outlier channels are rounded better."""

from __future__ import annotations

import copy

import pytest
import torch

from puna.base.errors import ConfigError
from puna.model.transformer import Transformer
from puna.quant.apply import quantize_model
from puna.quant.calibrate import Calibration, stages
from puna.quant.methods.method import Work
from puna.quant.methods.smoothquant import SmoothQuant
from puna.quant.plan import QuantPlan, from_recipe
from puna.testing import tiny_model


def with_outliers() -> Transformer:
    """A model whose norms put out two channels that are a hundred times larger, read by weights as much smaller."""
    model = tiny_model()
    with torch.no_grad():
        for layer in model.layers:
            for norm, readers in (
                (layer.input_layernorm, [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]),
                (layer.post_attention_layernorm, [layer.mlp.gate_proj, layer.mlp.up_proj]),
            ):
                norm.weight[:2] *= 100
                for reader in readers:
                    reader.weight[:, :2] /= 100
    return model


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85, 1.0])
def test_the_float_model_is_unchanged(alpha: float, ids: torch.Tensor, random_texts: Calibration) -> None:
    model = with_outliers()
    before = model(ids).detach()
    work = Work(model, from_recipe("int8", model.config))
    for stage in stages(model, random_texts, head=False):
        SmoothQuant(alpha).layer(work, stage)
    torch.testing.assert_close(model(ids), before, rtol=0, atol=1e-4 * float(before.abs().max()))


def test_it_halves_the_error_of_int8_where_there_are_outliers(ids: torch.Tensor, random_texts: Calibration) -> None:
    original = with_outliers()
    errors = {}
    for method in ("rtn", "smoothquant"):
        model = quantize_model(copy.deepcopy(original), from_recipe("int8", original.config), method, random_texts)
        with torch.inference_mode():
            errors[method] = float((model(ids) - original(ids)).norm())
    assert errors["smoothquant"] < errors["rtn"] / 2


def test_inputs_and_weights_share_the_spread_evenly(random_texts: Calibration) -> None:
    model = with_outliers()
    work = Work(model, QuantPlan(dict.fromkeys(("layers.0.mlp.up_proj", "layers.0.mlp.gate_proj"), "int8")))
    stage = next(stages(model, random_texts, head=False))
    SmoothQuant(0.5).layer(work, stage)
    largest_input = stage.inputs()["layers.0.mlp.up_proj"].absmax_K
    block = model.layers[0].mlp
    weights = torch.cat((block.up_proj.weight, block.gate_proj.weight)).detach()  # type: ignore[arg-type, union-attr]
    ratio = largest_input / weights.abs().amax(0)
    assert float(ratio.max() / ratio.min()) == pytest.approx(1, rel=1e-3)


def test_alpha_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"alpha is 1\.5"):
        SmoothQuant(1.5)
