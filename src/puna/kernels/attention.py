"""Attention of the last token of each sequence over a paged cache of keys and values, as decoding needs it.

The compiled kernel reads each cached key and value once for all query heads that share it, and threads share pieces of
256 tokens, so that one long sequence keeps all cores busy. The cut does not depend on the batch: a sequence gets the
same numbers whatever runs beside it. The fallback gathers the pages and multiplies with torch. Prefill is left out:
many queries of one sequence are a matter for scaled_dot_product_attention.

Shapes: N sequences, H query heads, G key/value heads, K head_dim, P pages, S tokens a page, B pages a sequence.
"""

from __future__ import annotations

from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels.build import library

_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3, torch.float8_e4m3fn: 4}
_SCALED = (torch.int8, torch.float8_e4m3fn)
_QUERIES = (torch.float32, torch.bfloat16)
_LENGTHS = (torch.int32, torch.int64)


def decode_attention(
    q_NHK: Tensor,
    k_PGSK: Tensor,
    v_PGSK: Tensor,
    block_table_NB: Tensor,
    lengths_N: Tensor,
    k_scale_PGS: Tensor | None = None,
    v_scale_PGS: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T / sqrt(K)) v over the first `lengths_N[n]` cached tokens, (N, H, K) in q's dtype.

    Args:
        q_NHK: rotated queries, float32 or bfloat16; heads [g*H/G, (g+1)*H/G) share key head g.
        k_PGSK: keys, float32, bfloat16, float16, int8 or float8_e4m3fn; pages may lie apart, the rest without gaps.
        v_PGSK: values, like the keys.
        block_table_NB: int32, the pages of each sequence in order, padded with -1.
        lengths_N: int32 or int64, how many tokens each query sees, itself included; none gives zeros.
        k_scale_PGS: float32, the scale of each token and head, where the cache is int8 or float8_e4m3fn.
        v_scale_PGS: likewise.
    """
    _check(q_NHK, k_PGSK, v_PGSK, block_table_NB, lengths_N)
    _check_scales(k_PGSK, k_scale_PGS, v_scale_PGS)
    if not q_NHK.is_cpu:
        return masked(q_NHK, k_PGSK, v_PGSK, block_table_NB, lengths_N, k_scale_PGS, v_scale_PGS)
    kernels = library()
    if kernels is None:
        _check_table(k_PGSK, block_table_NB, lengths_N)
        return _gathered(q_NHK, k_PGSK, v_PGSK, block_table_NB, lengths_N, k_scale_PGS, v_scale_PGS)
    (N, H, K), (P, G, S, _), B = q_NHK.shape, k_PGSK.shape, block_table_NB.shape[1]
    q_NHK, block_table_NB = q_NHK.contiguous(), block_table_NB.contiguous()
    lengths_N = lengths_N.to(torch.int64).contiguous()
    out_NHK = torch.empty_like(q_NHK)
    scales, scale_pages = (None, None), (0, 0)
    if k_scale_PGS is not None and v_scale_PGS is not None:
        scales = k_scale_PGS.data_ptr(), v_scale_PGS.data_ptr()
        scale_pages = k_scale_PGS.stride(0), v_scale_PGS.stride(0)
    fault = kernels.decode_attention(
        q_NHK.data_ptr(), q_NHK.dtype == torch.bfloat16, _KINDS[k_PGSK.dtype], k_PGSK.data_ptr(), v_PGSK.data_ptr(),
        *scales, k_PGSK.stride(0), v_PGSK.stride(0), *scale_pages, block_table_NB.data_ptr(), lengths_N.data_ptr(),
        out_NHK.data_ptr(), N, H, G, K, P, S, B, torch.get_num_threads(),
    )  # fmt: skip
    if fault:
        _check_table(k_PGSK, block_table_NB, lengths_N)
    return out_NHK


def _gathered(
    q_NHK: Tensor,
    k_PGSK: Tensor,
    v_PGSK: Tensor,
    block_table_NB: Tensor,
    lengths_N: Tensor,
    k_scale_PGS: Tensor | None,
    v_scale_PGS: Tensor | None,
) -> Tensor:
    """The definition in torch operations, one sequence at a time, in float32."""
    (_, H, K), G = q_NHK.shape, k_PGSK.shape[1]
    out_NHK = torch.zeros_like(q_NHK)
    for n, length in enumerate(lengths_N.tolist()):
        if length == 0:
            continue
        pages = block_table_NB[n, : -(-length // k_PGSK.shape[2])].long()

        def rows(cache_PGSK: Tensor, scale_PGS: Tensor | None, pages: Tensor = pages, length: int = length) -> Tensor:
            wide = cache_PGSK[pages].float()
            if scale_PGS is not None:
                wide = wide * scale_PGS[pages].unsqueeze(-1)
            return wide.transpose(0, 1).flatten(1, 2)[:, :length]

        q_GRK = q_NHK[n].float().view(G, H // G, K)
        weights_GRT = (q_GRK @ rows(k_PGSK, k_scale_PGS).transpose(1, 2) * K**-0.5).softmax(-1)
        out_NHK[n] = (weights_GRT @ rows(v_PGSK, v_scale_PGS)).view(H, K).to(q_NHK.dtype)
    return out_NHK


def masked(
    q_NHK: Tensor,
    k_PGSK: Tensor,
    v_PGSK: Tensor,
    block_table_NB: Tensor,
    lengths_N: Tensor,
    k_scale_PGS: Tensor | None = None,
    v_scale_PGS: Tensor | None = None,
) -> Tensor:
    """The same for GPUs: all sequences at once over all pages of the table, what lies beyond a length masked.

    Its shapes follow from those of its arguments alone and no number is looked at, so that CUDA can capture it; pages
    outside the cache are therefore not refused here.
    """
    H, (_, G, S, _) = q_NHK.shape[1], k_PGSK.shape
    table_NB = block_table_NB.clamp(min=0).long()

    def rows(cache_PGSK: Tensor, scale_PGS: Tensor | None) -> Tensor:
        if scale_PGS is None:
            wide = cache_PGSK[table_NB]
        else:  # as bytes, since FP8 cannot be indexed everywhere
            codes = cache_PGSK.view(torch.int8)[table_NB].view(cache_PGSK.dtype)
            wide = codes.float() * scale_PGS[table_NB].unsqueeze(-1)
        # Unseen slots hold anything, and no weight makes nothing of what is no number.
        return wide.transpose(1, 2).flatten(2, 3).to(q_NHK.dtype).masked_fill(~seen_NT[:, None, :, None], 0)

    seen_NT = torch.arange(table_NB.shape[1] * S, device=q_NHK.device) < lengths_N[:, None]
    out_NH1K = F.scaled_dot_product_attention(
        q_NHK.unsqueeze(2),
        rows(k_PGSK, k_scale_PGS),
        rows(v_PGSK, v_scale_PGS),
        attn_mask=seen_NT[:, None, None],
        enable_gqa=H != G,
    )
    return out_NH1K.squeeze(2).masked_fill((lengths_N == 0)[:, None, None], 0)


def _check(q: Tensor, k: Tensor, v: Tensor, table: Tensor, lengths: Tensor) -> None:
    shape, cache = q.shape, k.shape
    if len(shape) != 3 or len(cache) != 4 or v.shape != cache or table.dim() != 2 or lengths.dim() != 1:
        _refuse_shapes(q, k, v, table, lengths)
    (N, H, K), (_, G, S, _) = shape, cache
    if not (N == len(table) == len(lengths) and K == cache[3] > 0 and S > 0 and G > 0 and H % G == 0):
        _refuse_shapes(q, k, v, table, lengths)
    if q.dtype not in _QUERIES or k.dtype not in _KINDS or v.dtype is not k.dtype:
        raise InputError(
            f"q is {q.dtype}, k {k.dtype} and v {v.dtype}.",
            hint=f"q is float32 or bfloat16; k and v share one of {', '.join(map(str, _KINDS))}.",
        )
    if table.dtype is not torch.int32 or lengths.dtype not in _LENGTHS:
        raise InputError(
            f"The block table is {table.dtype} and the lengths are {lengths.dtype}.",
            hint="The table is int32, the lengths int32 or int64.",
        )
    if not (q.is_cpu and k.is_cpu and v.is_cpu and table.is_cpu and lengths.is_cpu):
        devices = {tensor.device for tensor in (q, k, v, table, lengths)}
        if len(devices) > 1:
            raise InputError(
                f"The tensors lie on {', '.join(sorted(map(str, devices)))}.", hint="Put them on one device."
            )
    for tensor in (k, v):
        if tensor.stride()[1:] != (S * K, K, 1):
            raise InputError(f"The cache has the strides {tensor.stride()}.", hint="Leave no gaps within a page.")
    if q.requires_grad and torch.is_grad_enabled():
        raise InputError("q needs gradients, and decoding has none.", hint="Call under torch.inference_mode().")


def _refuse_shapes(q: Tensor, k: Tensor, v: Tensor, table: Tensor, lengths: Tensor) -> NoReturn:
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}, block table {tuple(table.shape)}"
    raise InputError(
        f"The shapes do not fit: {shapes}, lengths {tuple(lengths.shape)}.",
        hint="They are (N, H, K), twice (P, G, S, K), (N, B) and (N,), and G divides H.",
    )


def _check_scales(k: Tensor, k_scale: Tensor | None, v_scale: Tensor | None) -> None:
    wanted = k.dtype in _SCALED
    for scale in (k_scale, v_scale):
        if (scale is not None) != wanted:
            raise InputError(f"The cache is {k.dtype}, with{'' if scale is not None else 'out'} scales.", hint=_SCALES)
        if scale is None:
            continue
        if scale.shape != k.shape[:3] or scale.dtype is not torch.float32 or scale.device != k.device:
            raise InputError(f"Scales are {tuple(scale.shape)}, {scale.dtype}, on {scale.device}.", hint=_SCALES)
        if scale.stride()[1:] != (k.shape[2], 1):
            raise InputError(f"A scale has the strides {scale.stride()}.", hint="Leave no gaps within a page.")


_SCALES = "int8 and float8_e4m3fn caches have float32 scales (P, G, S) on their device; other caches have none."


def _check_table(k: Tensor, table: Tensor, lengths: Tensor) -> None:
    """Refuses lengths beyond the table, and pages outside the cache."""
    (P, _, S, _), B = k.shape, table.shape[1]
    for n, (length, pages) in enumerate(zip(lengths.tolist(), table.tolist(), strict=True)):
        if not 0 <= length <= B * S:
            raise InputError(f"Sequence {n} has the length {length}; {B} pages of {S} tokens hold 0 to {B * S}.")
        for page in pages[: -(-length // S)]:
            if not 0 <= page < P:
                raise InputError(f"Sequence {n} has the page {page} among its {length} tokens; there are {P} pages.")
