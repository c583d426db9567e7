"""The output matrix of a model, quantised: what the model's `head` functions are given in its place.

`Transformer` hands the last hidden states and the output matrix to a function (logits, log-probabilities, a loss). A
quantised matrix is not a tensor that these could multiply with. So a hook puts itself between: logits are computed by
the quantised layer, and any other function gets what the layer says. Callers that take the hidden states alone, as the
engine does, and call `model.lm_head` themselves pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from puna.model.heads import logits
from puna.model.transformer import Transformer

_HEAD = 4  # the place of `head` among the arguments of Transformer.forward


@runtime_checkable
class OutputLayer(Protocol):
    """A layer whose `weight` is not the matrix that it multiplies with."""

    def for_head(self, hidden: Tensor) -> tuple[Tensor, Any]:
        """The hidden states and the matrix as a head function is to have them."""
        ...

    def __call__(self, hidden: Tensor) -> Tensor: ...


def untie(model: Transformer, copy: bool = False) -> None:
    """Gives a tied model an output matrix of its own, in place: the embedding's numbers, shared or copied."""
    if not model.config.tie_word_embeddings:
        return
    weight = model.embed_tokens.weight
    head = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
    data = weight.detach().clone() if copy else weight.detach()
    head.weight = nn.Parameter(data, requires_grad=weight.requires_grad)
    model.lm_head = head
    model.config = replace(model.config, tie_word_embeddings=False)


def route_head(model: Transformer) -> None:
    """Lets `model` compute its outputs with an `lm_head` that rounds, in place; more calls change nothing."""
    if not any(hook is _route for hook in model._forward_pre_hooks.values()):
        model.register_forward_pre_hook(_route, with_kwargs=True)


def _route(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    layer = model.get_submodule("lm_head")
    if not isinstance(layer, OutputLayer):
        return None
    given = args[_HEAD] if len(args) > _HEAD else kwargs.get("head", logits)

    def head(hidden_BTD: Tensor, _: Tensor) -> Any:
        return layer(hidden_BTD).float() if given is logits else given(*layer.for_head(hidden_BTD))

    return args[:_HEAD], {**kwargs, "head": head}
