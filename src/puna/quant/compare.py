"""What a model loses by quantisation: `compare` runs the original and the quantised model over the same texts.

Both are run side by side, layer by layer, so that the error of each layer's output is seen where it arises, and at the
end the distributions over the next token are held against each other: the Kullback-Leibler divergence to the original
sees a change of the model where perplexity, which may even fall by chance, does not. Scores on tasks and speeds are
measured elsewhere and join the report.

Shapes: T tokens of a row, N tokens of a chunk, D hidden_size, V vocab_size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import InputError
from puna.base.files import format_bytes
from puna.base.progress import Progress, Silent
from puna.model.transformer import Transformer
from puna.quant.calibrate import Calibration, Row, context, embedded
from puna.quant.methods.rotate import ROTATION
from puna.quant.output import OutputLayer
from puna.quant.plan import QuantPlan

_CHUNK = 128  # tokens whose logits are alive at once: 66 MB for each model at Llama 3's vocabulary

Head = Callable[[Tensor], Tensor]
Predicting = tuple[Head, Tensor]  # a head, and the hidden states that it predicts from


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far a layer's output is from the original's.

    Attributes:
        name: "layers.3".
        error: the root of the summed squared differences over that of the summed squares; the errors of the layers
            before it are in it.
    """

    name: str
    error: float


@dataclass(frozen=True, slots=True)
class QuantReport:
    """What a quantised model is.

    Attributes:
        recipe: of the plan.
        method: how it was rounded.
        formats: format -> how many modules have it.
        tokens: that were predicted.
        bytes_original: of the weights in bfloat16.
        bytes_quantized: of the weights as they are stored.
        perplexity_original: of the texts.
        perplexity_quantized: of the texts.
        kl: nats a token, from the original's distribution to the quantised one's.
        top1_agreement: share of tokens whose most likely successor is the same.
        layers: errors of the layers' outputs, in order.
        scores: name of a task -> (original, quantised).
        speeds: name of a speed -> (original, quantised), tokens a second.
    """

    recipe: str
    method: str
    formats: Mapping[str, int]
    tokens: int
    bytes_original: int
    bytes_quantized: int
    perplexity_original: float
    perplexity_quantized: float
    kl: float
    top1_agreement: float
    layers: tuple[LayerError, ...]
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    speeds: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def perplexity_change(self) -> float:
        """Relative: 0.01 is one per cent more."""
        return self.perplexity_quantized / self.perplexity_original - 1

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "perplexity_change": self.perplexity_change}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The report as a table: what, original, quantised, change."""
        change = f"{self.perplexity_change:+.3%}"
        rows = [
            (
                "bytes",
                format_bytes(self.bytes_original),
                format_bytes(self.bytes_quantized),
                f"{self.bytes_quantized / self.bytes_original:.1%}",
            ),
            ("perplexity", f"{self.perplexity_original:.4f}", f"{self.perplexity_quantized:.4f}", change),
            ("KL to the original", "", f"{self.kl:.6f}", "nats a token"),
            ("same top token", "", f"{self.top1_agreement:.2%}", f"of {self.tokens:,}"),
        ]
        rows += [(name, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}") for name, (old, new) in self.scores.items()]
        rows += [
            (f"{name}, tokens/s", f"{old:,.1f}", f"{new:,.1f}", f"{new / old:.2f}x")
            for name, (old, new) in self.speeds.items()
        ]
        if self.layers:
            worst = max(self.layers, key=lambda layer: layer.error)
            rows.append(("largest layer error", "", f"{worst.error:.4f}", worst.name))
        return rows

    def table(self) -> str:
        """The report for a terminal."""
        lines = [("", "original", "quantised", ""), *self.rows()]
        widths = [max(len(line[column]) for line in lines) for column in range(4)]
        formats = ", ".join(f"{count} x {name}" for name, count in self.formats.items())
        return "\n".join(
            [f"{self.recipe or 'own plan'}, {self.method}: {formats}"]
            + [
                f"{line[0]:{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]}".rstrip()
                for line in lines
            ]
        )


@torch.inference_mode()
def compare(
    original: Transformer,
    quantized: Transformer,
    texts: Calibration,
    plan: QuantPlan,
    method: str = "rtn",
    progress: Progress | None = None,
) -> QuantReport:
    """Runs both models over the same texts.

    Args:
        original: the float model, on the device of the other.
        quantized: what was made of it.
        texts: preferably others than those that it was calibrated with.
        plan: of the quantised model.
        method: by which it was made, for the report.
        progress: who watches.

    Raises:
        InputError: texts of another tokenizer, or with no two tokens in a row.
    """
    texts.check(original)
    sums = [torch.zeros(2, dtype=torch.float64) for _ in original.layers]
    total = Divergence()
    old_head, new_head = head_of(original), head_of(quantized)
    with (progress or Silent()).task("compare", texts.tokens, "tokens") as bar:
        for row in texts.rows:
            old_BTD, new_BTD = _run_both(original, quantized, row, sums)
            total += diverge((old_head, old_BTD), (new_head, new_BTD), targets(row).to(old_BTD.device))
            bar.advance(row.ids.numel())
    if not total.tokens:
        raise InputError("The texts have no two tokens in a row.", hint="Give longer texts.")
    return QuantReport(
        recipe=plan.recipe,
        method=method,
        formats=plan.formats,
        tokens=total.tokens,
        bytes_original=QuantPlan({}).bytes(original.config),
        bytes_quantized=plan.bytes(quantized.config),
        perplexity_original=math.exp(total.nll_original / total.tokens),
        perplexity_quantized=math.exp(total.nll_quantized / total.tokens),
        kl=total.kl / total.tokens,
        top1_agreement=total.agreeing / total.tokens,
        layers=tuple(
            LayerError(f"layers.{i}", float((wrong / right.clamp(min=1e-30)).sqrt()))
            for i, (wrong, right) in enumerate(sums)
        ),
    )


def _run_both(original: Transformer, quantized: Transformer, row: Row, sums: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The last hidden states of both models, after the norm; adds each layer's squared error and squares to `sums`."""
    rotation_DD = getattr(quantized, ROTATION, None)
    context_old, context_new = context(original, row), context(quantized, row)
    old_BTD, new_BTD = embedded(original, row), embedded(quantized, row)
    for old_layer, new_layer, added in zip(original.layers, quantized.layers, sums, strict=True):
        old_BTD, new_BTD = old_layer(old_BTD, context_old), new_layer(new_BTD, context_new)
        expected_BTD = old_BTD.float() if rotation_DD is None else old_BTD.float() @ rotation_DD.float()
        added += torch.stack([(new_BTD - expected_BTD).square().sum(), expected_BTD.square().sum()]).double().cpu()
    return original.norm(old_BTD), quantized.norm(new_BTD)


# Distributions --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Divergence:
    """Sums over tokens, in nats.

    Attributes:
        tokens: predicted.
        kl: divergence from the original's distribution.
        nll_original: negative log-likelihood of what comes.
        nll_quantized: the other model's.
        agreeing: tokens where both find the same successor most likely.
    """

    tokens: int = 0
    kl: float = 0.0
    nll_original: float = 0.0
    nll_quantized: float = 0.0
    agreeing: int = 0

    def __add__(self, other: Divergence) -> Divergence:
        return Divergence(
            self.tokens + other.tokens,
            self.kl + other.kl,
            self.nll_original + other.nll_original,
            self.nll_quantized + other.nll_quantized,
            self.agreeing + other.agreeing,
        )


@torch.inference_mode()
def diverge(original: Predicting, quantized: Predicting, targets_T: Tensor) -> Divergence:
    """Holds the next-token distributions of two models against each other, a chunk of tokens at a time.

    Args:
        original: the float model's head and its last hidden states after the norm, (1, T, D).
        quantized: the other model's.
        targets_T: the tokens that come; below 0 where none does.
    """
    kept_N = (targets_T >= 0).nonzero().squeeze(1)
    total = Divergence()
    for part_N in kept_N.split(_CHUNK):
        old_NV, new_NV = (head(hidden_BTD[0, part_N]).log_softmax(-1) for head, hidden_BTD in (original, quantized))
        target_N1 = targets_T[part_N, None]
        total += Divergence(
            len(part_N),
            float(F.kl_div(new_NV, old_NV, reduction="sum", log_target=True)),
            -float(old_NV.gather(1, target_N1).sum()),
            -float(new_NV.gather(1, target_N1).sum()),
            int((old_NV.argmax(-1) == new_NV.argmax(-1)).sum()),
        )
    return total


def head_of(model: Transformer) -> Head:
    """What makes (N, V) float32 logits of hidden states: the output matrix that the model has now."""
    layer = getattr(model, "lm_head", None)
    if isinstance(layer, OutputLayer):
        return lambda hidden_ND: layer(hidden_ND).float()
    weight_VD = model.head_weight_VD
    return lambda hidden_ND: F.linear(hidden_ND, weight_VD).float()


def targets(row: Row) -> Tensor:
    """The token that comes after each in its own sequence, (T,); -1 where none does."""
    ids_T, documents_T = row.ids[0], row.document_ids[0]
    next_T = torch.full_like(ids_T, -1)
    follows_T = documents_T[1:] == documents_T[:-1]
    next_T[:-1] = torch.where(follows_T, ids_T[1:], -1)
    return next_T
