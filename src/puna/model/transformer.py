"""The Llama 3.1 transformer (arXiv 2407.21783, section 3.2): only its mathematics.

Sizes stand in `config`, positions in `rope`, the softmax in `attention`, files in `checkpoint`, adapters in `lora`;
activation checkpointing and sharding are applied from outside. Parameters bear the names of Hugging Face's Llama,
which are the field's, so that adapters and files need no translation.

Shapes: B rows, T tokens, S keys, D hidden_size, H query heads, G key/value heads, K head_dim, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from puna.model.attention import attend, document_mask
from puna.model.cache import Cache
from puna.model.config import ModelConfig
from puna.model.heads import logits
from puna.model.rope import Rope, rotate


@dataclass(slots=True)
class Context:
    """What all layers share for one batch: rotary tables, and the mask or the cache of the tokens before it."""

    cos: Tensor
    sin: Tensor
    allowed_B1TS: Tensor | None = None
    cache: Cache | None = None


class RMSNorm(nn.Module):
    """Divides by the root mean square (arXiv 1910.07467): in float32, cast back, then times the weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        normal = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).to(x.dtype)
        return normal * self.weight.to(x.dtype)


class Attention(nn.Module):
    """Causal attention with grouped queries and rotary positions."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        D, K = config.hidden_size, config.head_dim
        self.layer, self.head_dim = layer, K
        self.q_proj = nn.Linear(D, config.num_attention_heads * K, bias=False)
        self.k_proj = nn.Linear(D, config.num_key_value_heads * K, bias=False)
        self.v_proj = nn.Linear(D, config.num_key_value_heads * K, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * K, D, bias=False)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        q_BHTK, k_BGTK, v_BGTK = (
            projection(x_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_BHTK, k_BGTK = rotate(q_BHTK, context.cos, context.sin), rotate(k_BGTK, context.cos, context.sin)
        if context.cache is not None:
            out_BHTK = context.cache.attend(self.layer, q_BHTK, k_BGTK, v_BGTK)
        else:
            out_BHTK = attend(q_BHTK, k_BGTK, v_BGTK, context.allowed_B1TS)
        return self.o_proj(out_BHTK.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Layer(nn.Module):
    """A pre-norm block."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, context: Context) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), context)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Transformer(nn.Module):
    """A Llama.

    Args:
        config: its shape. Parameters are left as torch makes them: load a checkpoint, or call `init.initialize`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rope = Rope(config)

    @property
    def head_weight_VD(self) -> Tensor:
        return self.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    def forward(
        self,
        ids_BT: Tensor,
        positions_BT: Tensor | None = None,
        document_ids_BT: Tensor | None = None,
        cache: Cache | None = None,
        head: Callable[[Tensor, Tensor], Any] = logits,
    ) -> Any:
        """Runs the network.

        Args:
            ids_BT: int64 token ids.
            positions_BT: int64; None counts from 0. A cache needs them.
            document_ids_BT: int64; tokens see only their own document. None is one document a row. Not read where
                there is a cache, which knows whose tokens they are.
            cache: holds the tokens before these, and takes these in.
            head: what to do with the last hidden states (B, T, D) and the output matrix (V, D). It runs inside the
                forward pass, so that a loss need not hold the logits and sharded weights are gathered around it.

        Returns:
            What `head` returns: by default logits, (B, T, V) float32.
        """
        context = self._context(ids_BT, positions_BT, document_ids_BT, cache)
        x_BTD = self.embed_tokens(ids_BT)
        if torch.is_autocast_enabled(x_BTD.device.type):
            # The residual stream takes the autocast dtype too: it is a third of a small model's memory traffic.
            x_BTD = x_BTD.to(torch.get_autocast_dtype(x_BTD.device.type))
        for layer in self.layers:
            x_BTD = layer(x_BTD, context)
        return head(self.norm(x_BTD), self.head_weight_VD)

    def _context(
        self, ids_BT: Tensor, positions_BT: Tensor | None, document_ids_BT: Tensor | None, cache: Cache | None
    ) -> Context:
        longest = ids_BT.shape[1]
        if positions_BT is None:
            positions_BT = torch.arange(longest, device=ids_BT.device).expand_as(ids_BT)
        elif cache is not None:
            longest = cache.longest
        elif positions_BT.numel():
            longest = max(longest, int(positions_BT.max()) + 1)
        cos, sin = self.rope.tables(positions_BT, longest)
        if cache is not None:
            return Context(cos, sin, cache=cache)
        if document_ids_BT is None:
            document_ids_BT = torch.zeros_like(ids_BT)
        return Context(cos, sin, document_mask(document_ids_BT, document_ids_BT))


class _UndrawnWeights(TorchFunctionMode):
    """Skips the draws of torch's own layers.

    On the meta device there is nothing to draw, and torch would import its compiler (80 MB) to find that out.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return None
        return func(*args, **(kwargs or {}))


def without_memory(config: ModelConfig) -> Transformer:
    """A model whose parameters have shapes and no numbers (torch's meta device), to be given weights."""
    with torch.device("meta"), _UndrawnWeights():
        return Transformer(config)


@cache
def shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
    """The name and shape of every parameter, in the order of the forward pass."""
    return {name: tuple(parameter.shape) for name, parameter in without_memory(config).named_parameters()}
