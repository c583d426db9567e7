"""Keys and values in pages, and attention over them: the cache that the model attends through.

Each layer stores the step's new keys and values into their slots, and then attends: short queries by a kernel that
reads the pages where they lie, long slices as blocks of queries against the keys gathered from their pages. Keys and
values may be stored as int8 or FP8, with one scale for each token and head.

Shapes: P pages, S tokens of a page, N tokens of the step, T tokens of a block, L tokens it sees, H query heads, G
key/value heads, R = H/G, K channels of a head, Q short queries.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import ResourceError
from puna.base.files import format_bytes
from puna.engine.batch import Block, StepBatch
from puna.kernels.attention import decode_attention
from puna.kernels.elementwise import causal_softmax
from puna.kernels.layer import CACHES, MOST_TOKENS, LayerPages, LayerStep
from puna.model.config import ModelConfig

_STORED = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
# What the decoding kernel takes: queries of other dtypes are cast, and a float64 cache is read with torch.
_KERNEL_QUERIES = (torch.float32, torch.bfloat16)
_KERNEL_CACHES = (torch.float32, torch.bfloat16, torch.float16, *_LARGEST)
# Queries of a block at a time, so that their scores stay in a processor's cache: of all heads, or of those that share
# keys where the sequence is long.
_SHORT_LENGTH, _SHORT_BLOCK, _LONG_BLOCK = 1024, 128, 64
# Products are padded to multiples of these: oneDNN compiles and keeps one for every shape that it meets.
_ROWS, _COLUMNS = 16, 32


def page_bytes(config: ModelConfig, page_tokens: int, dtype: torch.dtype) -> int:
    """Bytes of one page over all layers."""
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * page_tokens
    scale = 4 if dtype in _LARGEST else 0
    return numbers * (config.head_dim * dtype.itemsize + scale)


def stored_dtype(cache_dtype: str, model_dtype: torch.dtype) -> torch.dtype:
    return _STORED.get(cache_dtype, model_dtype)


class PagedCache:
    """Pages of keys and values of all layers.

    Args:
        config: the model's shape.
        pages: how many.
        page_tokens: tokens of a page.
        dtype: of keys and values in the cache.
        device: where.
    """

    def __init__(
        self, config: ModelConfig, pages: int, page_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (pages, config.num_key_value_heads, page_tokens, config.head_dim)
        layers = range(config.num_hidden_layers)
        try:
            self.k_PGSK = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
            self.v_PGSK = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
            scaled = shape[:3] if dtype in _LARGEST else (0,)
            self.k_scale_PGS = [torch.empty(scaled, device=device) for _ in layers]
            self.v_scale_PGS = [torch.empty(scaled, device=device) for _ in layers]
        except (RuntimeError, MemoryError) as error:
            size = format_bytes(pages * page_bytes(config, page_tokens, dtype))
            raise ResourceError(
                f"The cache of {size} does not fit into memory.", hint="Lower cache_bytes or max_context."
            ) from error
        self.pages = pages
        self.device = device
        self.dtype = dtype
        self.page_tokens = page_tokens
        self._batch: StepBatch | None = None
        self._step: LayerStep | None = None
        self.layer_pages: list[LayerPages] = []
        if device.type == "cpu" and dtype in CACHES:
            stored = zip(self.k_PGSK, self.v_PGSK, self.k_scale_PGS, self.v_scale_PGS, strict=True)
            self.layer_pages = [LayerPages(*layer) for layer in stored]

    def begin(self, batch: StepBatch) -> None:
        """The step whose keys and values come next."""
        self._batch, self._step = batch, None

    def layer_step(self, cos: Tensor, sin: Tensor) -> LayerStep | None:
        """The step as compiled layers take it; None where it has long slices, many tokens, or adapters.

        Args:
            cos: of the step's positions, (1, 1, N, K/2); the same for all layers.
            sin: likewise.
        """
        batch = self.batch
        plain = self.layer_pages and not batch.blocks and not batch.adapted and batch.short <= MOST_TOKENS
        if self._step is None and plain:
            self._step = LayerStep(cos[0, 0], sin[0, 0], batch.slots_N, batch.table_QB, batch.lengths_Q)
        return self._step

    @property
    def batch(self) -> StepBatch:
        assert self._batch is not None, "begin comes first"
        return self._batch

    @property
    def longest(self) -> int:
        return self.batch.longest

    def attend(self, layer: int, q_BHTK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor) -> Tensor:
        """The attention of the step's tokens in one layer; B is 1 and T is N here."""
        batch = self.batch
        self._store(layer, k_BGTK[0].transpose(0, 1), v_BGTK[0].transpose(0, 1))
        parts = []
        if batch.short:
            parts.append(self._attend_short(layer, q_BHTK[0, :, : batch.short]))
        for block in batch.blocks:
            here = slice(block.first, block.first + block.count)
            k_GLK, v_GLK = k_BGTK[0, :, here], v_BGTK[0, :, here]
            if block.length > block.count or self.dtype in _LARGEST:
                k_GLK = self._gather(self.k_PGSK[layer], self.k_scale_PGS[layer], block, q_BHTK.dtype)
                v_GLK = self._gather(self.v_PGSK[layer], self.v_scale_PGS[layer], block, q_BHTK.dtype)
            parts.append(attend_block(q_BHTK[0, :, here], k_GLK, v_GLK))
        return torch.cat(parts, dim=1)[None] if len(parts) > 1 else parts[0][None]

    def _attend_short(self, layer: int, q_HQK: Tensor) -> Tensor:
        """The attention of the short queries, (H, Q, K)."""
        batch = self.batch
        if self.dtype not in _KERNEL_CACHES:
            out_HQK = torch.empty_like(q_HQK)
            for i, length in enumerate(batch.lengths_Q.tolist()):
                pages = batch.table_QB[i, : -(-length // self.page_tokens)].long()
                block = Block(i, 1, length, pages)
                k_GLK = self._gather(self.k_PGSK[layer], self.k_scale_PGS[layer], block, q_HQK.dtype)
                v_GLK = self._gather(self.v_PGSK[layer], self.v_scale_PGS[layer], block, q_HQK.dtype)
                out_HQK[:, i : i + 1] = attend_block(q_HQK[:, i : i + 1], k_GLK, v_GLK)
            return out_HQK
        q_QHK = q_HQK.transpose(0, 1).contiguous()
        if q_QHK.dtype not in _KERNEL_QUERIES:
            q_QHK = q_QHK.float()
        scales = (self.k_scale_PGS[layer], self.v_scale_PGS[layer]) if self.dtype in _LARGEST else (None, None)
        out_QHK = decode_attention(
            q_QHK, self.k_PGSK[layer], self.v_PGSK[layer], batch.table_QB, batch.lengths_Q, *scales
        )
        return out_QHK.transpose(0, 1).to(q_HQK.dtype)

    def _store(self, layer: int, k_NGK: Tensor, v_NGK: Tensor) -> None:
        slots_N = self.batch.slots_N
        page_N, place_N = slots_N // self.page_tokens, slots_N % self.page_tokens
        for x_NGK, x_PGSK, scale_PGS in (
            (k_NGK, self.k_PGSK[layer], self.k_scale_PGS[layer]),
            (v_NGK, self.v_PGSK[layer], self.v_scale_PGS[layer]),
        ):
            if self.dtype in _LARGEST:
                scale_NG = x_NGK.float().abs().amax(-1).clamp(min=1e-12) / _LARGEST[self.dtype]
                x_NGK = x_NGK.float() / scale_NG[..., None]
                x_NGK = (x_NGK.round() if self.dtype == torch.int8 else x_NGK).to(self.dtype)
                scale_PGS[page_N, :, place_N] = scale_NG
                # index_put has no FP8 kernel on every device; the bytes are what is moved.
                x_PGSK.view(torch.int8)[page_N, :, place_N] = x_NGK.view(torch.int8)
            else:
                x_PGSK[page_N, :, place_N] = x_NGK.to(self.dtype)

    def _gather(self, x_PGSK: Tensor, scale_PGS: Tensor, block: Block, dtype: torch.dtype) -> Tensor:
        """A sequence's keys or values in order, (G, L, K)."""
        x_BGSK = (x_PGSK.view(torch.int8) if self.dtype in _LARGEST else x_PGSK)[block.pages]
        if self.dtype in _LARGEST:
            x_BGSK = x_BGSK.view(self.dtype).float() * scale_PGS[block.pages][..., None]
        return x_BGSK.transpose(0, 1).flatten(1, 2)[:, : block.length].to(dtype)


def attend_block(q_HTK: Tensor, k_GLK: Tensor, v_GLK: Tensor) -> Tensor:
    """Causal attention of a block of T queries that are the last of L tokens, (H, T, K).

    On the CPU the heads that share keys are multiplied as one matrix, some queries at a time and only up to the last
    key that they see: torch's fused attention takes twice as long there.
    """
    H, T, K = q_HTK.shape
    G, L = k_GLK.shape[:2]
    if q_HTK.device.type != "cpu":
        return attend_block_fused(q_HTK, k_GLK, v_GLK)
    past, rows = L - T, _up(T, _ROWS)
    columns = _up(past + rows, _COLUMNS)
    q_HTK = F.pad(q_HTK, (0, 0, 0, rows - T))
    k_GLK, v_GLK = (F.pad(x, (0, 0, 0, columns - L)).contiguous() for x in (k_GLK, v_GLK))
    q_GRTK = q_HTK.view(G, H // G, rows, K)
    out_GRTK = torch.empty_like(q_GRTK, memory_format=torch.contiguous_format)
    size, together = (_SHORT_BLOCK, G) if L <= _SHORT_LENGTH else (_LONG_BLOCK, 1)
    for start, first in product(range(0, rows, size), range(0, G, together)):
        end, last = min(start + size, rows), min(first + together, G)
        seen = _up(past + end, _COLUMNS)
        q_GNK = q_GRTK[first:last, :, start:end].flatten(1, 2)
        scores = (q_GNK @ k_GLK[first:last, :seen].transpose(-1, -2)).unflatten(1, (-1, end - start))
        probabilities = causal_softmax(scores, K**-0.5, past + start).flatten(1, 2)
        out_GRTK[first:last, :, start:end] = (probabilities @ v_GLK[first:last, :seen]).unflatten(1, (-1, end - start))
    return out_GRTK.view(H, rows, K)[:, :T]


def _up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def attend_block_fused(q_HTK: Tensor, k_GLK: Tensor, v_GLK: Tensor) -> Tensor:
    """The same by torch's fused attention, which on CUDA keeps no scores."""
    H, T, _ = q_HTK.shape
    G, L = k_GLK.shape[:2]
    # Without a mask where it can be, since only then CUDA takes its fastest kernel.
    allowed_TL = None if T == L else torch.ones(T, L, dtype=torch.bool, device=q_HTK.device).tril(L - T)
    return F.scaled_dot_product_attention(
        q_HTK[None], k_GLK[None], v_GLK[None], allowed_TL, is_causal=T == L, enable_gqa=H != G
    )[0]
