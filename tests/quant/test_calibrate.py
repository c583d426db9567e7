"""Rows of texts, and what a layer is seen to be given."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puna.base.errors import ConfigError, InputError
from puna.base.progress import Silent
from puna.model.transformer import Transformer
from puna.quant.calibrate import EVERY_PAIR, Calibration, CalibrationConfig, Stage, context, embedded, stages
from puna.quant.formats import FORMATS
from puna.quant.linear import QuantLinear
from puna.testing import tiny_model


def sequences(calibration: Calibration) -> list[tuple[int, ...]]:
    """The sequences that rows are made of."""
    found = []
    for row in calibration.rows:
        ids, documents = row.ids[0], row.document_ids[0]
        for number in documents.unique():
            found.append(tuple(ids[documents == number].tolist()))
    return found


def test_sequences_are_packed_without_padding_and_long_ones_cut() -> None:
    texts = [[i] * n for i, n in enumerate((5, 3, 20, 8, 1, 0))]
    calibration = Calibration(texts, CalibrationConfig(row_tokens=8))
    assert calibration.tokens == 37
    assert sorted(sequences(calibration)) == sorted([(0,) * 5, (1,) * 3, (2,) * 8, (2,) * 8, (2,) * 4, (3,) * 8, (4,)])
    assert len(calibration.rows) == 5
    for row in calibration.rows:
        starts = (row.document_ids[0].diff(prepend=torch.tensor([-1])) != 0).nonzero().flatten()
        assert row.positions[0, starts].eq(0).all()
        assert row.ids.shape == row.positions.shape == row.document_ids.shape


def test_too_many_tokens_are_drawn_from_the_same_for_a_seed() -> None:
    texts = [[i] * 4 for i in range(100)]
    first, again = (Calibration(texts, CalibrationConfig(tokens=42)) for _ in range(2))
    other = Calibration(texts, CalibrationConfig(tokens=42, seed=1))
    assert first.tokens == 42
    assert sequences(first) == sequences(again) != sequences(other)


def test_no_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="no tokens"):
        Calibration([[], []])
    with pytest.raises(ConfigError, match="row_tokens is 1"):
        CalibrationConfig(row_tokens=1)


def test_texts_beyond_the_models_context_are_refused() -> None:
    with pytest.raises(InputError, match="a sequence of 60 tokens; the model's context is 32"):
        Calibration([[1] * 60]).check(tiny_model(max_position_embeddings=32))


def run(model: Transformer, texts: Calibration) -> list[torch.Tensor]:
    """Last hidden states of each row, by the model's own forward pass."""
    return [model(row.ids, row.positions, row.document_ids, head=lambda h, _: h) for row in texts.rows]


def test_layer_by_layer_gives_the_hidden_states_of_the_whole_model(random_texts: Calibration) -> None:
    model = tiny_model()
    with torch.inference_mode():
        for row, expected in zip(random_texts.rows, run(model, random_texts), strict=True):
            x = embedded(model, row)
            for layer in model.layers:
                x = layer(x, context(model, row))
            torch.testing.assert_close(model.norm(x), expected)


def caught_inputs(model: Transformer, name: str, texts: Calibration) -> torch.Tensor:
    if name == "lm_head":
        return torch.cat([x.flatten(0, -2) for x in run(model, texts)]).detach()
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    run(model, texts)
    hook.remove()
    return torch.cat([x.flatten(0, -2) for x in seen]).detach()


@pytest.mark.parametrize("gram", [0, 8, EVERY_PAIR])
def test_every_linear_layers_inputs_are_summed(gram: int, random_texts: Calibration) -> None:
    model = tiny_model()
    for stage in stages(model, random_texts, head=True):
        for name, inputs in stage.inputs(gram).items():
            x = caught_inputs(model, name, random_texts)
            assert inputs.count == len(x) == random_texts.tokens
            torch.testing.assert_close(inputs.absmax_K, x.abs().amax(0))
            torch.testing.assert_close(inputs.mean_K, x.abs().mean(0), rtol=1e-4, atol=1e-5)
            if gram:
                groups = x.unflatten(1, (-1, min(gram, x.shape[1]))).double()
                expected = torch.einsum("mcg,mch->cgh", groups, groups).float()
                torch.testing.assert_close(inputs.gram_CGG, expected, rtol=1e-3, atol=1e-2)


def test_all_matrices_are_seen_and_those_with_the_same_inputs_share_them(random_texts: Calibration) -> None:
    model = tiny_model()
    names = [f"layers.{i}" for i in range(2)] + ["lm_head"]
    found: dict[str, Any] = {}
    for stage, name in zip(stages(model, random_texts, head=True), names, strict=True):
        assert stage.name == name
        assert stage.inputs().keys() == stage.linears().keys()
        found |= stage.inputs()
    assert len(found) == 15
    seen = next(stages(model, random_texts, head=False)).inputs()
    assert seen["layers.0.self_attn.q_proj"] is seen["layers.0.self_attn.v_proj"]
    assert seen["layers.0.mlp.up_proj"] is seen["layers.0.mlp.gate_proj"]
    assert seen["layers.0.mlp.up_proj"] is not seen["layers.0.mlp.down_proj"]


def test_a_changed_layer_passes_its_own_outputs_on(random_texts: Calibration) -> None:
    model, changed = tiny_model(), tiny_model()
    seen = []
    for each, name in ((model, ""), (changed, "layers.0.mlp.down_proj")):
        for stage in stages(each, random_texts, head=False):
            if name in stage.linears():
                weight = stage.linears()[name].weight
                each.set_submodule(name, QuantLinear.from_weight(weight, FORMATS["int4-g32"]))
        seen.append(stage.inputs()["layers.1.self_attn.q_proj"].absmax_K)
    assert not torch.equal(*seen)
    expected = caught_inputs(changed.requires_grad_(False), "layers.1.self_attn.q_proj", random_texts)
    torch.testing.assert_close(seen[1], expected.abs().amax(0))


def test_a_part_of_a_block_is_called_as_in_the_model(random_texts: Calibration) -> None:
    model = tiny_model()
    stage = next(stages(model, random_texts, head=False))
    calls = stage.calls("mlp", 50)
    assert sum(call[0].shape[1] for call in calls) == 50
    x = caught_inputs(model, "layers.0.mlp", random_texts)
    torch.testing.assert_close(calls[0][0][0], x[: calls[0][0].shape[1]])


def test_without_texts_nothing_is_run() -> None:
    model = tiny_model()
    for stage in stages(model, None, head=True):
        assert stage.outputs() == []
        with pytest.raises(AssertionError):
            stage.inputs()


class Watching(Silent):
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.done = 0.0

    def task(self, name: str, total: float | None, unit: str = "", done: float = 0) -> Any:
        self.total, self.unit = total, unit
        return super().task(name, total, unit, done)


def test_progress_has_a_total_of_tokens(random_texts: Calibration) -> None:
    progress = Watching()
    for stage in stages(tiny_model(), random_texts, head=False, progress=progress):
        assert isinstance(stage, Stage)
    assert (progress.total, progress.unit) == (2 * random_texts.tokens, "tokens")
