"""Scales that move from a layer's inputs into its matrix: the model computes the same, and is rounded differently.

Channel k of the inputs is divided by s_k where it is produced, and column k of the matrices that read it is multiplied
by s_k. A block has four places where that costs nothing at run time: the two norms before the attention and before the
feed-forward layers, the values that the output projection reads, and the product that the down projection reads
(through the up projection, which enters it linearly). Query heads that share a value head share its scales.

Shapes: N outputs, K inputs, C channels of a producer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from puna.model.config import ModelConfig
from puna.model.transformer import RMSNorm
from puna.quant.calibrate import SHARED_INPUTS, Stage
from puna.quant.methods.method import Work

_PRODUCERS = ("input_layernorm", "self_attn.v_proj", "post_attention_layernorm", "mlp.up_proj")
_LEAST, _MOST = 1e-4, 1e4  # of a scale: beyond, bfloat16 norms would lose more than rounding gains


@dataclass(frozen=True, slots=True)
class Fold:
    """A place where scales can move.

    Attributes:
        producer: the norm or linear layer whose outputs are scaled.
        readers: name -> linear layer that reads them.
        heads: (key/value heads, query heads for each, channels of a head) where query heads share their values.
    """

    producer: RMSNorm | nn.Linear
    readers: Mapping[str, nn.Linear]
    heads: tuple[int, int, int] | None = None

    def gather(self, statistic_K: Tensor) -> Tensor:
        """A statistic of the readers' inputs for each channel of the producer, (C,): the largest of those it feeds."""
        if self.heads is None:
            return statistic_K
        groups, repeats, size = self.heads
        return statistic_K.view(groups, repeats, size).amax(1).flatten()

    def spread(self, scale_C: Tensor) -> Tensor:
        """The scale of each of the readers' inputs, (K,)."""
        if self.heads is None:
            return scale_C
        groups, repeats, size = self.heads
        return scale_C.view(groups, 1, size).expand(groups, repeats, size).flatten()

    def apply(self, scale_C: Tensor) -> None:
        """Divides what is produced and multiplies what reads it, in place."""
        weight = self.producer.weight
        divisor = scale_C if weight.ndim == 1 else scale_C[:, None]
        replace_weight(self.producer, weight.detach().float() / divisor)
        for reader in self.readers.values():
            replace_weight(reader, reader.weight.detach().float() * self.spread(scale_C))


def folds(work: Work, stage: Stage) -> Iterator[Fold]:
    """The places of a layer where a reader is going to be rounded; the others are left alone."""
    if stage.layer is None:
        return
    float_layers = stage.linears()
    for producer, names in zip(_PRODUCERS, SHARED_INPUTS, strict=True):
        full = [f"{stage.name}.{name}" for name in names]
        # A norm's scales reach all its readers, so all of them must still be float.
        if not all(name in float_layers for name in full) or not any(name in work.plan.modules for name in full):
            continue
        module = stage.layer.get_submodule(producer)
        assert isinstance(module, (RMSNorm, nn.Linear))
        heads = _heads(work.model.config) if producer == "self_attn.v_proj" else None
        yield Fold(module, {name: float_layers[name] for name in full}, heads)


def _heads(config: ModelConfig) -> tuple[int, int, int]:
    groups = config.num_key_value_heads
    return groups, config.num_attention_heads // groups, config.head_dim


def bounded(scale_C: Tensor) -> Tensor:
    """Scales around 1, and none that is extreme; 1 where a channel is never used."""
    scale_C = scale_C.nan_to_num(nan=1.0, posinf=1.0, neginf=1.0)
    scale_C = scale_C.where(scale_C > 0, 1.0)
    return (scale_C / scale_C.median()).clamp(_LEAST, _MOST)


def replace_weight(module: nn.Module, weight: Tensor) -> None:
    """Gives a module other numbers in the dtype of its old ones; the old tensor, which may be a file, is untouched."""
    old = module.weight
    assert isinstance(old, nn.Parameter)
    module.weight = nn.Parameter(weight.to(old.dtype), requires_grad=old.requires_grad)
