"""The compiled layer against the model's own layer, with every format of weights and of the cache; `test_build` runs
this file for every instruction set."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels import layer as kernel
from puna.kernels.attention import decode_attention
from puna.kernels.build import library
from puna.kernels.layer import MOST_TOKENS, PROJECTIONS, LayerPages, LayerStep, LayerWeights, Matrix, decode_layer
from puna.kernels.linear import bf16_linear, fp8_linear, int4_linear, int8_linear
from puna.model.config import ModelConfig
from puna.model.rope import Rope, rotate
from puna.model.transformer import RMSNorm
from puna.testing import tiny_config

pytestmark = pytest.mark.skipif(library() is None, reason="there are no compiled kernels")

CONFIG = tiny_config(hidden_size=256, intermediate_size=384, head_dim=64, max_position_embeddings=512)
PAGES, PAGE = 12, 8
FORMATS = ("bf16", "int8", "int8 weights only", "fp8", "fp8 blocks", "int4 g32", "int4 g128")
CACHES = (None, torch.int8, torch.float8_e4m3fn)
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}
EPS = 1e-5


def matrix(N: int, K: int, format: str) -> Matrix:
    scale = (torch.rand(N) + 1) * 6e-4  # so that products are about as large as their inputs
    if format == "bf16":
        return Matrix("bf16", (torch.randn(N, K) * K**-0.5).bfloat16())
    if format.startswith("int8"):
        return Matrix("int8", torch.randint(-127, 128, (N, K)).to(torch.int8), scale, format == "int8")
    if format == "fp8":
        return Matrix("fp8", torch.randn(N, K).to(torch.float8_e4m3fn), scale * 70, True, 1200.0)
    if format == "fp8 blocks":
        return Matrix("fp8", torch.randn(N, K).to(torch.float8_e4m3fn), torch.rand(-(-N // 128), -(-K // 128)) * 0.1)
    packed, group = torch.randint(-(2**31), 2**31, (N, K // 8)).to(torch.int32), int(format[6:])
    return Matrix("int4", packed, torch.rand(N, K // group).bfloat16() * 0.03)


def multiply(w: Matrix, x: Tensor) -> Tensor:
    if w.scale is None:
        return bf16_linear(x, w.weight)
    if w.format == "int8":
        return int8_linear(x, w.weight, w.scale, quantize_activations=w.quantize)
    if w.format == "fp8":
        return fp8_linear(x, w.weight, w.scale, quantize_activations=w.quantize, cap=w.cap)
    return int4_linear(x, w.weight, w.scale)


@dataclass
class Case:
    """A layer with a cache in which three sequences lie, and a step of five tokens of them."""

    config: ModelConfig
    matrices: dict[str, Matrix]
    norms: tuple[Tensor, Tensor]
    k: Tensor
    v: Tensor
    k_scale: Tensor
    v_scale: Tensor
    positions: Tensor
    table: Tensor
    x: Tensor

    @property
    def slots(self) -> Tensor:
        pages = self.table[torch.arange(len(self.x)), self.positions // PAGE].long()
        return pages * PAGE + self.positions % PAGE

    @property
    def angles(self) -> tuple[Tensor, Tensor]:
        cos, sin = Rope(self.config).tables(self.positions[None], 512)
        return cos[0, 0], sin[0, 0]

    def step(self) -> LayerStep:
        return LayerStep(*self.angles, self.slots, self.table, self.positions + 1)

    def run(self) -> Tensor:
        x = self.x.clone()
        heads = self.config.num_attention_heads, self.config.num_key_value_heads
        weights = LayerWeights(self.matrices, self.norms, EPS, heads)
        decode_layer(weights, LayerPages(self.k, self.v, self.k_scale, self.v_scale), self.step(), x)
        return x


def case(format: str = "bf16", dtype: torch.dtype = torch.bfloat16, stored: torch.dtype | None = None) -> Case:
    torch.manual_seed(0)
    D, I, K = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.head_dim
    H, G = CONFIG.num_attention_heads, CONFIG.num_key_value_heads
    sizes = {"q": (H * K, D), "k": (G * K, D), "v": (G * K, D), "o": (D, H * K), "gate": (I, D), "up": (I, D)}
    matrices = {name: matrix(*size, format) for name, size in (sizes | {"down": (D, I)}).items()}
    k, v = torch.randn(2, PAGES, G, PAGE, K)
    scales = [torch.empty(0), torch.empty(0)]
    if stored is not None:
        scales = [x.abs().amax(-1) / LARGEST[stored] for x in (k, v)]
        k, v = (x / scale[..., None] for x, scale in zip((k, v), scales, strict=True))
        k, v = (x.round() if stored is torch.int8 else x for x in (k, v))
    table = torch.tensor([[3, 7, 0], [3, 7, 0], [3, 7, 0], [5, -1, -1], [1, 9, -1]]).int()
    positions = torch.tensor([17, 18, 19, 2, 8])
    return Case(
        CONFIG,
        matrices,
        (torch.rand(D).to(dtype) + 0.5, torch.rand(D).to(dtype) + 0.5),
        k.to(stored or dtype),
        v.to(stored or dtype),
        *scales,
        positions,
        table,
        torch.randn(5, D).to(dtype),
    )


def expected(c: Case) -> Tensor:
    """The layer in its parts, by functions that have tests of their own."""

    def norm(x: Tensor, weight: Tensor) -> Tensor:
        made = RMSNorm(len(weight), EPS)
        made.weight.data = weight
        return made(x)

    def heads(name: str) -> Tensor:
        return multiply(c.matrices[name], normal).unflatten(-1, (-1, c.config.head_dim))

    with torch.inference_mode():
        cos, sin = (table[:, None] for table in c.angles)
        normal = norm(c.x, c.norms[0])
        q, k, v = rotate(heads("q"), cos, sin), rotate(heads("k"), cos, sin), heads("v")
        page, place = c.slots // PAGE, c.slots % PAGE
        for new, cache, scales in ((k, c.k, c.k_scale), (v, c.v, c.v_scale)):
            if cache.dtype in LARGEST:
                scale = new.float().abs().amax(-1) / LARGEST[cache.dtype]
                scales[page, :, place] = scale
                new = new.float() / scale[..., None]
                new = (new.round() if cache.dtype is torch.int8 else new).to(cache.dtype)
            cache.view(torch.int8)[page, :, place] = new.contiguous().view(torch.int8)
        more = (c.k_scale, c.v_scale) if c.k.dtype in LARGEST else (None, None)
        attended = decode_attention(q.contiguous(), c.k, c.v, c.table, c.positions + 1, *more)
        x = c.x + multiply(c.matrices["o"], attended.flatten(1))
        normal = norm(x, c.norms[1])
        middle = F.silu(multiply(c.matrices["gate"], normal)) * multiply(c.matrices["up"], normal)
        return x + multiply(c.matrices["down"], middle)


def assert_near(got: Tensor, wanted: Tensor) -> None:
    """A value that is rounded the other way in between moves what follows from it."""
    bound = 0.03 if got.dtype is torch.bfloat16 else 1e-2
    assert float((got - wanted).float().norm() / wanted.float().norm()) < bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_of_weights(format: str, dtype: torch.dtype) -> None:
    one, other = case(format, dtype), case(format, dtype)
    got, wanted = one.run(), expected(other)
    assert bool(wanted.isfinite().all())
    assert float((wanted - one.x).norm() / one.x.norm()) > 0.3  # the layer does something
    assert_near(got - one.x, wanted - one.x)
    for mine, theirs in ((one.k, other.k), (one.v, other.v)):
        assert_near(mine, theirs)
        assert bool((mine != case(format, dtype).k).any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("stored", [torch.int8, torch.float8_e4m3fn])
def test_every_kind_of_cache(stored: torch.dtype, dtype: torch.dtype) -> None:
    one, other = case("bf16", dtype, stored), case("bf16", dtype, stored)
    assert_near(one.run(), expected(other))
    for mine, theirs in ((one.k, other.k), (one.v, other.v)):
        assert int((mine.view(torch.int8) != theirs.view(torch.int8)).sum()) <= 0.002 * mine.numel()
    for mine, theirs in ((one.k_scale, other.k_scale), (one.v_scale, other.v_scale)):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-6)


def test_every_e4m3_value_is_stored_as_its_code() -> None:
    codes = torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn)
    for start in (0, 63, 128, 191):
        wanted = torch.cat([codes[start : start + 63], codes[126:127]])  # with the largest, so that the scale is right
        c = case("bf16", torch.float32, torch.float8_e4m3fn)
        # The first input alone reaches the values, which are then a column of their matrix.
        c.matrices["v"].weight.zero_()[:64, 0] = wanted.bfloat16()
        c.norms[0].zero_()[0] = 1
        c.x.zero_()[:, 0] = 1
        c.run()
        assert torch.equal(c.v[int(c.table[3, 0]), 0, 2].float(), wanted.float())


def test_a_token_gets_the_same_numbers_whatever_runs_beside_it() -> None:
    for format in FORMATS:
        whole, alone = case(format), case(format)
        together = whole.run()
        alone.x, alone.table, alone.positions = alone.x[3:4], alone.table[3:4], alone.positions[3:4]
        assert torch.equal(alone.run(), together[3:4]), format


def test_what_does_not_fit_is_refused_and_leaves_x_alone() -> None:
    c = case()
    c.table[3, 0] = PAGES
    before = c.x.clone()
    weights = LayerWeights(c.matrices, c.norms, EPS, (4, 2))
    pages = LayerPages(c.k, c.v, c.k_scale, c.v_scale)
    with pytest.raises(InputError, match="outside the cache"):
        decode_layer(weights, pages, c.step(), c.x)
    assert torch.equal(c.x, before)
    c = case()
    for x in (c.x.float(), c.x[:4], c.x.t().contiguous().t()):
        with pytest.raises(InputError, match="for a step of 5 tokens"):
            decode_layer(weights, pages, c.step(), x)
    many = MOST_TOKENS + 1
    step = LayerStep(*(torch.ones(many, 32) for _ in range(2)), torch.zeros(many), torch.zeros(many, 1).int(),
                     torch.ones(many))  # fmt: skip
    with pytest.raises(InputError, match=f"at most {MOST_TOKENS} tokens"):
        decode_layer(weights, pages, step, torch.zeros(many, 256).bfloat16())


def test_the_structures_are_those_of_the_source() -> None:
    """Sizes that a compiler gives the same fields: eight bytes where a pointer or an int64 stands."""
    assert {name for name, _ in kernel._Matrix._fields_} >= {"format", "cap", "group", "N", "weight", "scale"}
    assert (len(PROJECTIONS), len(kernel._Pages._fields_)) == (7, 12)
