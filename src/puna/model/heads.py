"""What ends a forward pass: logits, log-probabilities of given tokens, or the loss, without holding B*T*V numbers.

Llama 3's vocabulary has 128,256 entries, so the float32 logits of 4,096 tokens take 2 GiB, and a plain cross-entropy
holds three such tensors. The functions here go through the tokens in chunks. `cross_entropy` computes the gradient
together with the loss: it is known up to a factor as soon as the chunk's logits are, so nothing is kept or computed
twice.

Shapes: N tokens (any leading shape, flattened), D hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers of one chunk's logits: 8 MiB of float32, which stay in a processor's cache.
_CHUNK_NUMBERS = 2 << 20
# Tokens of a chunk at least: with fewer, adding to the weight's gradient takes longer than computing it.
_CHUNK_TOKENS = 64


def logits(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
    """(B, T, V) float32."""
    return F.linear(hidden_BTD, weight_VD).float()


def token_logprobs(hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, chunk_tokens: int = 0) -> Tensor:
    """Natural-log probability of each target, (B, T) float32; where the target is negative, 0.

    Its gradient takes another pass over the chunks: unlike that of `cross_entropy`, it has a factor for each token,
    which is known only when all of a sequence's probabilities are.

    Args:
        hidden_BTD: last hidden states.
        weight_VD: output matrix.
        targets_BT: int64.
        chunk_tokens: tokens whose logits are held at once; 0 for as many as suit the vocabulary.
    """
    if not (torch.is_grad_enabled() and weight_VD.requires_grad):
        weight_VD = weight_VD.detach()  # of a quantised layer's stand-in for its matrix this is the tensor itself
    hidden_ND, targets_N = hidden_BTD.flatten(0, -2), targets_BT.flatten()
    kept_N = targets_N >= 0
    index = None if bool(kept_N.all()) else kept_N.nonzero().squeeze(1)
    if index is not None:
        hidden_ND, targets_N = hidden_ND[index], targets_N[index]
    found_N = _TokenLogprobs.apply(hidden_ND, weight_VD, targets_N, _compute_dtype(hidden_ND), chunk_tokens)
    if index is not None:
        found_N = found_N.new_zeros(targets_BT.numel()).index_copy(0, index, found_N)
    return found_N.view(targets_BT.shape)


def cross_entropy(hidden_BTD: Tensor, weight_VD: Tensor, targets_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of the targets' negative log-probabilities over the tokens where `mask_BT` is True, a float32 scalar.

    Args:
        hidden_BTD: last hidden states.
        weight_VD: output matrix.
        targets_BT: int64; only read where the mask holds.
        mask_BT: bool, the tokens to learn.
    """
    # Tokens that are not learnt are dropped first: in fine-tuning data they are most of a batch.
    if not torch.is_grad_enabled():
        weight_VD = weight_VD.detach()  # else the function below is asked for its gradient all the same
    keep_N = mask_BT.flatten()
    hidden_ND, targets_N = hidden_BTD.flatten(0, -2), targets_BT.flatten()
    if not bool(keep_N.all()):
        index = keep_N.nonzero().squeeze(1)
        hidden_ND, targets_N = hidden_ND[index], targets_N[index]
    return _CrossEntropy.apply(hidden_ND, weight_VD, targets_N, _compute_dtype(hidden_ND))


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradient in one pass over chunks of tokens."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, dtype: torch.dtype) -> Tensor:
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        # The products are in `dtype`; their sum over chunks has the weight's own, or small terms would be lost.
        grad_VD = torch.zeros_like(weight_VD) if needs_weight else None
        weight_VD = weight_VD.to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        for part in _chunks(hidden_ND, weight_VD):
            chunk_ND, target_N1 = hidden_ND[part].to(dtype), targets_N[part, None]
            logits_NV = (chunk_ND @ weight_VD.T).float()
            lse_N1 = logits_NV.logsumexp(-1, keepdim=True)
            total += (lse_N1 - logits_NV.gather(1, target_N1)).sum()
            if not (needs_hidden or needs_weight):
                continue
            # d loss / d logits = softmax - one-hot, in the place of the logits.
            delta_NV = logits_NV.sub_(lse_N1).exp_()
            delta_NV.scatter_add_(1, target_N1, torch.full_like(lse_N1, -1.0))
            delta_NV = delta_NV.to(dtype)
            if grad_ND is not None:
                grad_ND[part] = delta_NV @ weight_VD
            if grad_VD is None:
                continue
            if grad_VD.dtype == dtype:
                grad_VD.addmm_(delta_NV.T, chunk_ND)
            else:
                grad_VD += delta_NV.T @ chunk_ND
        ctx.grads = grad_ND, grad_VD
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        scale = grads[0]
        grad_ND, grad_VD = ctx.grads
        ctx.grads = None
        return (
            None if grad_ND is None else grad_ND.mul_(scale),
            None if grad_VD is None else grad_VD.mul_(scale),
            None,
            None,
        )


class _TokenLogprobs(torch.autograd.Function):
    """Chunks of logits in both directions; between them only each token's normaliser is kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, dtype: torch.dtype, chunk_tokens: int
    ) -> Tensor:
        out_N = torch.empty(targets_N.shape, dtype=torch.float32, device=hidden_ND.device)
        lse_N = torch.empty_like(out_N)
        weight = weight_VD.to(dtype)
        for part in _chunks(hidden_ND, weight, chunk_tokens):
            logits_NV = (hidden_ND[part].to(dtype) @ weight.T).float()
            lse_N[part] = logits_NV.logsumexp(-1)
            out_N[part] = logits_NV.gather(1, targets_N[part, None]).squeeze(1) - lse_N[part]
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, lse_N)
        ctx.dtype, ctx.chunk_tokens = dtype, chunk_tokens
        return out_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (factor_N,) = grads
        hidden_ND, weight_VD, targets_N, lse_N = ctx.saved_tensors
        grad_ND = torch.empty_like(hidden_ND) if ctx.needs_input_grad[0] else None
        grad_VD = torch.zeros_like(weight_VD) if ctx.needs_input_grad[1] else None
        weight = weight_VD.to(ctx.dtype)
        for part in _chunks(hidden_ND, weight, ctx.chunk_tokens):
            chunk_ND, factor_N1 = hidden_ND[part].to(ctx.dtype), factor_N[part, None]
            # d logprob / d logits = one-hot - softmax.
            delta_NV = (chunk_ND @ weight.T).float().sub_(lse_N[part, None]).exp_().mul_(-factor_N1)
            delta_NV = delta_NV.scatter_add_(1, targets_N[part, None], factor_N1).to(ctx.dtype)
            if grad_ND is not None:
                grad_ND[part] = delta_NV @ weight
            if grad_VD is not None:
                grad_VD += delta_NV.T @ chunk_ND
        return grad_ND, grad_VD, None, None, None


def _compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of the product with the output matrix: autocast's, or that of the hidden states."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _chunks(hidden_ND: Tensor, weight_VD: Tensor, tokens: int = 0) -> Iterator[slice]:
    size = tokens or max(_CHUNK_TOKENS, _CHUNK_NUMBERS // weight_VD.shape[0])
    for start in range(0, hidden_ND.shape[0], size):
        yield slice(start, start + size)
