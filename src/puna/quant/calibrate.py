"""Calibration: a model's layers run one after another over the user's texts, to see what they are given.

Only the hidden states between two layers are kept, and of a layer's inputs only what a method asks for: magnitudes of
channels, or products of channels (the Gram matrix X^T X). A layer that has been quantised passes its own outputs on, so
that the layers after it are adjusted to what they will really see. Sequences are packed into rows and do not see each
other; nothing is padded.

Shapes: T tokens of a row, D hidden_size, M tokens, K inputs of a layer in C groups of G.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from puna.base.config import require
from puna.base.errors import InputError
from puna.base.progress import Progress, Silent, Task
from puna.model.attention import document_mask
from puna.model.transformer import Context, Layer, Transformer
from puna.quant.plan import HEAD

# The layers of a block that are given the same inputs: one look serves all of a row.
SHARED_INPUTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)

EVERY_PAIR = sys.maxsize  # for Inputs: one group of all channels


@dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """How much is looked at.

    Attributes:
        tokens: of all sequences, at most; they are drawn at random where there are more.
        row_tokens: the longest context; longer sequences are cut.
        seed: of the draw.
    """

    tokens: int = 65_536
    row_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.tokens >= 1, f"tokens is {self.tokens}; it must be at least 1.")
        require(self.row_tokens >= 2, f"row_tokens is {self.row_tokens}; it must be at least 2.")


@dataclass(frozen=True, slots=True)
class Row:
    """Sequences one after another, which do not see each other: (1, T) int64 each."""

    ids: Tensor
    positions: Tensor
    document_ids: Tensor

    def first(self, tokens: int) -> Row:
        """The beginning of the row."""
        return Row(self.ids[:, :tokens], self.positions[:, :tokens], self.document_ids[:, :tokens])


class Calibration:
    """Texts in rows.

    Args:
        sequences: token ids of texts or conversations, each with its start token.
        config: how much of them is used.

    Raises:
        InputError: no tokens at all.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], config: CalibrationConfig | None = None) -> None:
        config = config or CalibrationConfig()
        pieces = [
            list(sequence[start : start + config.row_tokens])
            for sequence in sequences
            for start in range(0, len(sequence), config.row_tokens)
        ]
        random.Random(config.seed).shuffle(pieces)
        self.rows = [_row(pieces) for pieces in _packed(_first(pieces, config.tokens), config.row_tokens)]
        self.tokens = sum(row.ids.numel() for row in self.rows)
        if not self.tokens:
            raise InputError("There are no tokens to calibrate with.", hint="Give texts or conversations.")

    def check(self, model: Transformer) -> None:
        """Refuses ids that the model does not have, and rows that are longer than its context."""
        largest = max(int(row.ids.max()) for row in self.rows)
        longest = max(int(row.positions.max()) + 1 for row in self.rows)
        if largest >= model.config.vocab_size:
            raise InputError(
                f"The calibration holds the id {largest}; the model has {model.config.vocab_size} tokens.",
                hint="Encode the texts with the model's own tokenizer.",
            )
        if longest > model.config.max_position_embeddings:
            raise InputError(
                f"The calibration holds a sequence of {longest} tokens; the model's context is "
                f"{model.config.max_position_embeddings}.",
                hint=f"Set row_tokens to {model.config.max_position_embeddings}.",
            )


def _first(pieces: Sequence[list[int]], tokens: int) -> list[list[int]]:
    kept, left = [], tokens
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return [piece for piece in kept if piece]


def _packed(pieces: Sequence[list[int]], size: int) -> list[list[list[int]]]:
    """Pieces in rows of at most `size` tokens, each into the first row with room for it, the longest first."""
    rows: list[list[list[int]]] = []
    room: list[int] = []
    for piece in sorted(pieces, key=len, reverse=True):
        place = next((i for i, left in enumerate(room) if left >= len(piece)), None)
        if place is None:
            rows.append([piece])
            room.append(size - len(piece))
        else:
            rows[place].append(piece)
            room[place] -= len(piece)
    return rows


def _row(pieces: Sequence[Sequence[int]]) -> Row:
    ids = torch.tensor([[id for piece in pieces for id in piece]])
    positions = torch.tensor([[i for piece in pieces for i in range(len(piece))]])
    documents = torch.tensor([[d for d, piece in enumerate(pieces) for _ in piece]])
    return Row(ids, positions, documents)


def context(model: Transformer, row: Row) -> Context:
    """What the layers of `model` share for a row."""
    device = model.embed_tokens.weight.device
    documents = row.document_ids.to(device)
    cos, sin = model.rope.tables(row.positions.to(device), int(row.positions.max()) + 1)
    return Context(cos, sin, document_mask(documents, documents))


def embedded(model: Transformer, row: Row) -> Tensor:
    """(1, T, D)"""
    return model.embed_tokens(row.ids.to(model.embed_tokens.weight.device))


# What is seen ---------------------------------------------------------------------------------------------------------


class Inputs:
    """What a linear layer is given, summed over all rows.

    Args:
        gram: 0 for no products; else G, and products of channels are added up within groups of G neighbours.
            EVERY_PAIR is one group of all channels.

    Attributes:
        count: rows seen.
        absmax_K: the largest absolute input of each channel.
        gram_CGG: sum of outer products of each of the C groups, float32.
    """

    def __init__(self, gram: int = 0) -> None:
        self.count = 0
        self.absmax_K = self._sum_K = self.gram_CGG = torch.zeros(())
        self._gram = gram

    @property
    def mean_K(self) -> Tensor:
        """The mean absolute input of each channel."""
        return self._sum_K / max(1, self.count)

    def add(self, x: Tensor) -> None:
        x_MK = x.detach().flatten(0, -2).float()
        absolute_MK = x_MK.abs()
        G = min(self._gram, x_MK.shape[1])
        if self.count == 0:
            self.absmax_K = x_MK.new_zeros(x_MK.shape[1])
            self._sum_K = torch.zeros_like(self.absmax_K)
            self.gram_CGG = x_MK.new_zeros((x_MK.shape[1] // G, G, G)) if G else self.gram_CGG
        self.absmax_K = torch.maximum(self.absmax_K, absolute_MK.amax(0))
        self._sum_K += absolute_MK.sum(0)
        if G:
            x_CGM = x_MK.T.unflatten(0, (-1, G))
            self.gram_CGG.baddbmm_(x_CGM, x_CGM.transpose(1, 2))
        self.count += x_MK.shape[0]


def _look(inputs: Inputs, module: nn.Module, args: tuple[Any, ...]) -> None:
    """A hook before a layer."""
    del module
    inputs.add(args[0])


class Stage:
    """One layer of a model (or its output matrix) and the hidden states that come to it.

    Args:
        model: the model.
        name: "layers.3" or "lm_head".
        calibration: the texts; None where none are needed, and then nothing is run.
        hidden: (1, T, D) for each row.
        bar: told of each row that has been run.
    """

    def __init__(
        self, model: Transformer, name: str, calibration: Calibration | None, hidden: list[Tensor], bar: Task
    ) -> None:
        self.model, self.name, self.calibration, self._hidden, self._bar = model, name, calibration, hidden, bar

    @property
    def layer(self) -> Layer | None:
        """The block; None for the output matrix."""
        return None if self.name == HEAD else self.model.get_submodule(self.name)  # type: ignore[return-value]

    def linears(self) -> dict[str, nn.Linear]:
        """Name -> linear layer, of those that are not quantised yet."""
        found = self.model.get_submodule(self.name).named_modules(prefix=self.name)
        return {name: module for name, module in found if isinstance(module, nn.Linear)}

    @torch.no_grad()
    def inputs(self, gram: int = 0) -> dict[str, Inputs]:
        """Runs the layer and reports what each linear layer in it is given; those with the same inputs share them.

        Args:
            gram: as in `Inputs`.
        """
        seen: dict[str, Inputs] = {}
        hooks = []
        for names in self._groups():
            inputs = Inputs(gram)
            seen |= dict.fromkeys(names, inputs)
            module = self.model.get_submodule(names[0])
            hooks.append(module.register_forward_pre_hook(partial(_look, inputs)))
        try:
            self._run()
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    @torch.no_grad()
    def calls(self, child: str, tokens: int) -> list[tuple[Any, ...]]:
        """What a part of the block ("self_attn", "mlp") is called with on the first `tokens` of the texts."""
        assert self.calibration is not None
        assert self.layer is not None, "the output matrix has no parts"
        found: list[tuple[Any, ...]] = []
        hook = self.layer.get_submodule(child).register_forward_pre_hook(lambda _, args: found.append(args))
        try:
            for row, x_BTD in zip(self.calibration.rows, self._hidden, strict=True):
                if tokens > 0:
                    self.layer(x_BTD[:, :tokens], context(self.model, row.first(tokens)))
                    tokens -= row.ids.numel()
        finally:
            hook.remove()
        return found

    def outputs(self) -> list[Tensor]:
        """What the layer passes on as it is now."""
        return self._run() if self.calibration and self.name != HEAD else self._hidden

    def _groups(self) -> list[tuple[str, ...]]:
        if self.name == HEAD:
            return [(HEAD,)]
        return [tuple(f"{self.name}.{name}" for name in group) for group in SHARED_INPUTS]

    @torch.no_grad()
    def _run(self) -> list[Tensor]:
        assert self.calibration is not None, "a method that looks at inputs asks for a calibration"
        outputs = []
        for row, x_BTD in zip(self.calibration.rows, self._hidden, strict=True):
            if self.layer is None:
                self.model.lm_head(self.model.norm(x_BTD))
            else:
                outputs.append(self.layer(x_BTD, context(self.model, row)))
            self._bar.advance(row.ids.numel() / 2)
        return outputs


@torch.no_grad()
def _embed(model: Transformer, calibration: Calibration) -> list[Tensor]:
    return [embedded(model, row) for row in calibration.rows]


def stages(
    model: Transformer,
    calibration: Calibration | None,
    head: bool,
    progress: Progress | None = None,
    name: str = "quantise",
) -> Iterator[Stage]:
    """The layers of a model in order; what a stage is left as decides what the next one is given.

    Args:
        model: in eval mode; its layers may be changed between two stages.
        calibration: the texts; None to go through the layers without running them.
        head: whether the output matrix (of an untied model) is the last stage.
        progress: who watches.
        name: of the work.
    """
    names = [f"layers.{i}" for i in range(len(model.layers))] + [HEAD] * head
    hidden: list[Tensor] = []
    if calibration is not None:
        calibration.check(model)
        hidden = _embed(model, calibration)
    # A layer is run twice: to be looked at, and to pass on what it has become.
    total = len(names) * (calibration.tokens if calibration else 1)
    with (progress or Silent()).task(name, total, "tokens" if calibration else "layers") as bar:
        for stage_name in names:
            stage = Stage(model, stage_name, calibration, hidden, bar)
            yield stage
            hidden = stage.outputs()
            if calibration is None:
                bar.advance()
