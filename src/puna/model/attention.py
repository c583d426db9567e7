"""Softmax attention with grouped queries, behind one seam: `attend(q, k, v, allowed)`.

Two implementations give the same numbers. `fused` is torch's scaled_dot_product_attention, which never holds the
scores: the one for CUDA and for long sequences. `blocked` multiplies matrices block by block and keeps the
probabilities: on a CPU with bf16 matrix products it trains short sequences about twice as fast. `attend` chooses.
Sparse, windowed or linear attention is left out: Llama 3.1 has none.

Shapes: B rows, T queries, S keys, H query heads, G key/value heads, R = H/G, K channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 256
_BLOCKED_MAX_TOKENS = 1024


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, allowed_B1TS: Tensor | None) -> Tensor:
    """Scaled dot-product attention, (B, H, T, K).

    Args:
        q_BHTK: rotated queries.
        k_BGSK: rotated keys; query heads [j*R, (j+1)*R) share key head j.
        v_BGSK: values.
        allowed_B1TS: bool, True where a query may look at a key: at itself, and at none after it. None means causal,
            where the queries are the last T of the S keys' positions, and T is S or 1.
    """
    training = torch.is_grad_enabled() and q_BHTK.requires_grad
    tokens = q_BHTK.shape[-2]
    if training and q_BHTK.device.type == "cpu" and tokens == k_BGSK.shape[-2] <= _BLOCKED_MAX_TOKENS:
        return blocked(q_BHTK, k_BGSK, v_BGSK, allowed_B1TS)
    return fused(q_BHTK, k_BGSK, v_BGSK, allowed_B1TS)


def fused(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, allowed_B1TS: Tensor | None) -> Tensor:
    return F.scaled_dot_product_attention(
        q_BHTK,
        k_BGSK,
        v_BGSK,
        attn_mask=allowed_B1TS,
        is_causal=allowed_B1TS is None and q_BHTK.shape[-2] > 1,
        enable_gqa=q_BHTK.shape[1] != k_BGSK.shape[1],
    )


def blocked(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, allowed_B1TS: Tensor | None) -> Tensor:
    """Attention of T = S tokens, a block of queries at a time against the keys up to the block's end.

    Keys that lie wholly in a block's future are skipped, which saves up to half of the work. Softmax is computed in
    float32 inside torch's kernel whatever the dtype of the scores.
    """
    B, H, T, K = q_BHTK.shape
    G = k_BGSK.shape[1]
    q_BGRTK = (q_BHTK * K**-0.5).view(B, G, H // G, T, K)
    if allowed_B1TS is None:
        allowed_B1TS = torch.ones(T, T, dtype=torch.bool, device=q_BHTK.device).tril()[None, None]
    bias_B1TS = torch.zeros_like(allowed_B1TS, dtype=q_BHTK.dtype).masked_fill_(~allowed_B1TS, float("-inf"))
    outs = []
    for start in range(0, T, _BLOCK):
        end = min(start + _BLOCK, T)
        rows = H // G * (end - start)
        scores = q_BGRTK[:, :, :, start:end].reshape(B, G, rows, K) @ k_BGSK[:, :, :end].transpose(-1, -2)
        scores = scores.view(B, H, end - start, end) + bias_B1TS[:, :, start:end, :end]
        probabilities = scores.softmax(-1).view(B, G, rows, end)
        outs.append((probabilities @ v_BGSK[:, :, :end]).view(B, H, end - start, K))
    return torch.cat(outs, dim=2) if len(outs) > 1 else outs[0]


def document_mask(query_ids_BT: Tensor, key_ids_BS: Tensor) -> Tensor | None:
    """Which keys each query may see, (B, 1, T, S) bool: those of its own document, not after it.

    The queries are the last T of the S tokens. Returns None where each row is one document and T is S or 1, so
    that attention can take its causal path.
    """
    T, S = query_ids_BT.shape[1], key_ids_BS.shape[1]
    if T in (1, S) and bool((key_ids_BS == key_ids_BS[:, :1]).all()):
        return None
    same_BTS = query_ids_BT[:, :, None] == key_ids_BS[:, None, :]
    causal_TS = torch.ones(T, S, dtype=torch.bool, device=key_ids_BS.device).tril(S - T)
    return (same_BTS & causal_TS)[:, None]
