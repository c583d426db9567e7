"""Every product against float64 over the numbers that the stored codes stand for, worked out here by their definitions.

`test_build` runs this file again for every instruction set, and without the library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from puna.base.errors import InputError
from puna.kernels import linear
from puna.kernels.linear import SMALL_M, bf16_linear, fp8_linear, int4_linear, int8_linear

FLOATS = (torch.float32, torch.bfloat16)
SHAPES = [(5, 1), (7, 33), (129, 257), (64, 128), (3, 4100), (130, 96)]  # (outputs, inputs)
INT4_SHAPES = [((7, 32), 32), ((5, 160), 32), ((33, 256), 128), ((9, 128), 64), ((6, 192), 96), ((3, 2304), 256)]
FEW = [1, 2, 3, 5, 8, 13, 16, 39]
MANY = [41, 49, 65]  # beyond SMALL_M of some formats, and of all


# Definitions ----------------------------------------------------------------------------------------------------------


def e4m3(code: int) -> float:
    """The number of an FP8 code (arXiv 2209.05433, table 1)."""
    sign, exponent, fraction = -1.0 if code & 128 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and fraction == 7:
        return math.nan
    if exponent == 0:
        return sign * fraction / 8 * 2.0**-6
    return sign * (1 + fraction / 8) * 2.0 ** (exponent - 7)


E4M3 = torch.tensor([e4m3(code) for code in range(256)], dtype=torch.float64)
GRID = E4M3[:127]  # not negative, in rising order


def numbers(codes: Tensor) -> Tensor:
    return E4M3[codes.view(torch.uint8).long()]


def nibbles(packed_NP: Tensor) -> Tensor:
    """Codes -8 .. 7 of int32 words, lowest nibble first."""
    rows = [[((word & 0xFFFFFFFF) >> 4 * i & 15) - 8 for word in row for i in range(8)] for row in packed_NP.tolist()]
    return torch.tensor(rows, dtype=torch.float64)


def rounded_int8(x: Tensor) -> Tensor:
    """Tokens as int8 codes times their scale, float64."""
    scale = x.float().abs().amax(-1, keepdim=True) / 127
    return torch.where(scale == 0, 0, x.float() / scale).round().double() * scale.double()


def rounded_blocks(x: Tensor) -> Tensor:
    return torch.cat([rounded_int8(block) for block in x.split(128, dim=1)], dim=1)


def rounded_fp8(x: Tensor, cap: float) -> Tensor:
    """Tokens as the nearest E4M3 number (ties to an even code) times their scale."""
    scale = (x.float().abs().amax(1, keepdim=True).clamp(1e-12, cap) / 448).float()
    values = (x.float() / scale).double().clamp(-448, 448)
    distance = (values.abs().unsqueeze(-1) - GRID).abs()
    nearest = distance.amin(-1, keepdim=True)
    tied = (distance == nearest).double() * torch.tensor([2.0 if i % 2 == 0 else 1.0 for i in range(127)])
    return GRID[tied.argmax(-1)] * values.sign() * scale.double()


def close(got: Tensor, x: Tensor, weight: Tensor, widened: bool = False) -> None:
    """Within the rounding of sums in float32, of the result's dtype, and of weights widened to that dtype."""
    assert torch.isfinite(x).all()
    expected, total = x.double() @ weight.T, x.double().abs() @ weight.abs().T
    bound = 4e-6 * total + 1e-30
    if got.dtype == torch.bfloat16:
        bound = bound + 2.0**-7 * expected.abs() + (2.0**-8 * total if widened else 0)
    worst = ((got.double() - expected).abs() - bound).max().item()
    assert got.dtype in FLOATS
    assert worst <= 0, f"off by {worst} beyond the bound"


# Formats --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Random weights in a format: how to multiply with them, and what they and the tokens stand for."""

    run: Callable[[Tensor], Tensor]
    weight_NK: Tensor  # float64
    seen: Callable[[Tensor], Tensor]  # tokens as the product rounds them


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape) * (high - low) + low


def int8_codes(N: int, K: int) -> Tensor:
    codes = torch.randint(-128, 128, (N, K)).to(torch.int8)
    codes[0] = torch.tensor([-128, 127, 0])[torch.arange(K) % 3]
    return codes


def fp8_codes(N: int, K: int) -> Tensor:
    """Random codes without NaN; the first row holds subnormals, the last the largest numbers."""
    codes = torch.randint(0, 127, (N, K)) + 128 * torch.randint(0, 2, (N, K))
    codes[0], codes[-1] = torch.arange(K) % 8 + 128 * (torch.arange(K) % 2), 126 + 128 * (torch.arange(K) % 2)
    return codes.to(torch.uint8).view(torch.float8_e4m3fn)


def bf16_case(N: int, K: int) -> Case:
    weight = torch.randn(N, K).bfloat16()
    return Case(lambda x: bf16_linear(x, weight), weight.double(), lambda x: x)


def int8_case(N: int, K: int, rounds: bool) -> Case:
    codes, scale = int8_codes(N, K), uniform(0.001, 0.1, N)
    run = lambda x: int8_linear(x, codes, scale, quantize_activations=rounds)  # noqa: E731
    return Case(run, codes.double() * scale.double()[:, None], rounded_int8 if rounds else lambda x: x)


def fp8_case(N: int, K: int, rounds: bool, blocked: bool) -> Case:
    codes = fp8_codes(N, K)
    scale = uniform(0.001, 0.1, -(-N // 128), -(-K // 128)) if blocked else uniform(0.001, 0.1, N)
    expanded = scale.repeat_interleave(128, 0)[:N].repeat_interleave(128, 1)[:, :K] if blocked else scale[:, None]
    run = lambda x: fp8_linear(x, codes, scale, quantize_activations=rounds, cap=2.5)  # noqa: E731
    return Case(run, numbers(codes) * expanded.double(), lambda x: rounded_fp8(x, 2.5) if rounds else x)


def int4_case(N: int, K: int, group: int, dtype: torch.dtype) -> Case:
    packed = torch.randint(-(2**31), 2**31, (N, K // 8)).to(torch.int32)
    scale = uniform(0.001, 0.1, N, K // group).to(dtype)
    weight = nibbles(packed) * scale.double().repeat_interleave(group, dim=1)
    seen = lambda x: rounded_blocks(x) if len(x) <= SMALL_M["int4"] else x  # noqa: E731
    return Case(lambda x: int4_linear(x, packed, scale), weight, seen)


CASES = {
    "bf16": bf16_case,
    "int8": lambda N, K: int8_case(N, K, True),
    "int8 weights only": lambda N, K: int8_case(N, K, False),
    "fp8": lambda N, K: fp8_case(N, K, True, False),
    "fp8 weights only": lambda N, K: fp8_case(N, K, False, False),
    "fp8 blocks": lambda N, K: fp8_case(N, K, True, True),
    "fp8 blocks, weights only": lambda N, K: fp8_case(N, K, False, True),
    "int4": lambda N, K: int4_case(N, max(K // 32 * 32, 32), 32, torch.bfloat16),
}
every_format = pytest.mark.parametrize("name", CASES)
every_float = pytest.mark.parametrize("dtype", FLOATS)


@every_float
@pytest.mark.parametrize("shape", SHAPES)
@every_format
def test_products_are_those_of_the_stored_numbers(name: str, shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(hash(shape) % 1000)
    case = CASES[name](*shape)
    for M in FEW + MANY:
        x = torch.randn(M, case.weight_NK.shape[1]).to(dtype)
        close(case.run(x), case.seen(x), case.weight_NK, widened=M > 1)


@every_float
@pytest.mark.parametrize("scale_dtype", FLOATS)
@pytest.mark.parametrize(("shape", "group"), INT4_SHAPES)
def test_int4_of_every_group_size(
    shape: tuple[int, int], group: int, scale_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    torch.manual_seed(group)
    case = int4_case(*shape, group, scale_dtype)
    for M in (1, 2, 4, 7, *MANY):
        x = torch.randn(M, shape[1]).to(dtype)
        close(case.run(x), case.seen(x), case.weight_NK, widened=len(x) > SMALL_M["int4"])


@every_format
def test_no_tokens_give_no_rows(name: str) -> None:
    case = CASES[name](6, 64)
    assert case.run(torch.empty(0, 64)).shape == (0, 6)


@every_float
@every_format
def test_outliers_and_rows_of_zeros(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    case = CASES[name](20, 256)
    x = torch.randn(5, 256).to(dtype)
    x[0] = 0
    x[1, 3] = 3e4
    x[2] *= 1e-20
    x[3, ::7] = 0
    for tokens in (x, x.repeat(14, 1)):
        got = case.run(tokens)
        close(got, case.seen(tokens), case.weight_NK, widened=True)
        assert not got[0].any()


def test_weights_of_zeros_and_tiny_scales() -> None:
    x = torch.randn(3, 96)
    zeros = torch.zeros(4, 96, dtype=torch.int8)
    assert not int8_linear(x, zeros, torch.ones(4), quantize_activations=True).any()
    assert not fp8_linear(x, zeros.view(torch.float8_e4m3fn), torch.ones(4), quantize_activations=True).any()
    packed = torch.full((4, 12), -0x77777778, dtype=torch.int32)  # nibbles of 8
    assert not int4_linear(x, packed, torch.ones(4, 3)).any()
    assert not int8_linear(x, zeros + 1, torch.zeros(4), quantize_activations=True).any()


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("rounds", [False, True])
@every_float
@pytest.mark.parametrize("M", [1, 3, 65])
def test_every_fp8_code_is_read_exactly(M: int, dtype: torch.dtype, rounds: bool, blocked: bool) -> None:
    codes = torch.arange(256, dtype=torch.uint8).repeat(64, 1).T.contiguous().view(torch.float8_e4m3fn)  # (256, 64)
    x = torch.zeros(M, 64, dtype=dtype)
    x[:, 37] = 2.0
    scale = torch.full((2, 1), 0.5) if blocked else torch.full((256,), 0.5)
    got = fp8_linear(x, codes, scale, quantize_activations=rounds).double()
    numbered = E4M3.isfinite()
    assert got[:, ~numbered].isnan().all()
    assert torch.allclose(got[:, numbered], E4M3[numbered].expand(M, -1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rounds", [False, True])
@every_float
def test_every_int8_code_is_read_exactly(dtype: torch.dtype, rounds: bool) -> None:
    codes = torch.arange(-128, 128).to(torch.int8).repeat(64, 1).T.contiguous()
    x = torch.zeros(2, 64, dtype=dtype)
    x[:, 11] = 1.0
    got = int8_linear(x, codes, torch.ones(256), quantize_activations=rounds)
    assert torch.allclose(got.double(), torch.arange(-128, 128).double().expand(2, -1), rtol=1e-6, atol=1e-6)


@every_format
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_spoils_its_own_token_alone(name: str, poison: float) -> None:
    torch.manual_seed(2)
    case = CASES[name](12, 128)
    for M in (4, 70):
        x = torch.randn(M, 128)
        clean = case.run(x)
        x[2, 5] = poison
        got = case.run(x)
        others = torch.arange(M) != 2
        assert torch.equal(got[others], clean[others])
        capped = name in ("fp8", "fp8 blocks") and math.isinf(poison)
        assert got[2].isfinite().all() == capped  # a cap turns an infinity into the largest number


def test_an_fp8_cap_saturates_and_saves_the_rest() -> None:
    torch.manual_seed(5)
    codes, x = fp8_codes(8, 256), torch.randn(1, 256)
    x[0, 0] = 1e5
    weight, rest = numbers(codes), x.double()
    free = fp8_linear(x, codes, torch.ones(8), quantize_activations=True)
    capped = fp8_linear(x, codes, torch.ones(8), quantize_activations=True, cap=4.0)
    close(free, rounded_fp8(x, math.inf), weight)
    close(capped, rounded_fp8(x, 4.0), weight)
    rest[0, 0] = 0
    exact = rest @ weight.T
    assert (capped.double() - 4.0 * weight[:, 0] - exact).norm() < 0.1 * exact.norm()


# Memory ---------------------------------------------------------------------------------------------------------------


def moved(tensor: Tensor, offset: int) -> Tensor:
    """A copy that starts `offset` bytes after an aligned address."""
    memory = torch.empty(tensor.numel() * tensor.element_size() + 64 + offset, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + offset
    raw = memory[start : start + tensor.numel() * tensor.element_size()]
    raw.copy_(tensor.contiguous().view(-1).view(torch.uint8))
    if offset % tensor.element_size() == 0:
        return raw.view(tensor.dtype).view(tensor.shape)
    return torch.frombuffer(memory.numpy(), dtype=tensor.dtype, offset=start, count=tensor.numel()).view(tensor.shape)


@pytest.mark.parametrize("offset", [2, 8, 24])
@pytest.mark.parametrize("M", [1, 3, 65])
def test_weights_may_start_anywhere(M: int, offset: int) -> None:
    torch.manual_seed(3)
    N, K = 10, 160
    x, scale = torch.randn(M, K).bfloat16(), torch.rand(N)
    weight, codes, fp8 = torch.randn(N, K).bfloat16(), int8_codes(N, K), fp8_codes(N, K)
    packed, groups = torch.randint(-(2**31), 2**31, (N, K // 8)).to(torch.int32), torch.rand(N, K // 32).bfloat16()
    assert torch.equal(bf16_linear(x, moved(weight, offset)), bf16_linear(x, weight))
    for rounds in (False, True):
        got = int8_linear(x, moved(codes, offset - 1), moved(scale, 4 * offset), quantize_activations=rounds)
        assert torch.equal(got, int8_linear(x, codes, scale, quantize_activations=rounds))
        got = fp8_linear(x, moved(fp8, offset - 1), moved(scale, 4 * offset), quantize_activations=rounds)
        assert torch.equal(got, fp8_linear(x, fp8, scale, quantize_activations=rounds))
    got = int4_linear(x, moved(packed, 4 * offset), moved(groups, offset))
    assert torch.equal(got, int4_linear(x, packed, groups))


def test_many_tokens_inside_and_outside_of_inference_mode() -> None:
    """The scratch of one is written to in the other."""
    x, codes, scale = torch.randn(70, 64), int8_codes(300, 64), torch.rand(300)
    for inside in (True, False, True):
        with torch.inference_mode(inside):
            for rounds in (False, True):
                int8_linear(x, codes, scale, quantize_activations=rounds)
                fp8_linear(x, codes.view(torch.float8_e4m3fn), scale, quantize_activations=rounds)
            bf16_linear(x, torch.ones(300 + 300 * inside, 64).bfloat16())


def test_tokens_may_be_a_view() -> None:
    weight, wide = torch.randn(6, 64).bfloat16(), torch.randn(5, 128)
    for x in (wide[:, ::2], wide[:, 64:], torch.randn(64, 5).T):
        assert torch.allclose(bf16_linear(x, weight), bf16_linear(x.contiguous(), weight), rtol=1e-5, atol=1e-5)


@every_format
def test_a_token_gives_the_same_numbers_whatever_runs_beside_it(name: str) -> None:
    torch.manual_seed(4)
    case = CASES[name](37, 288)
    x = torch.randn(39, 288).bfloat16()
    alone = torch.cat([case.run(row.unsqueeze(0)) for row in x])
    if linear.library() is None:
        pytest.skip("torch's products do not promise this")
    for M in FEW:
        assert torch.equal(case.run(x[:M]), alone[:M]), M


@every_format
def test_the_number_of_threads_changes_nothing(name: str) -> None:
    case, before = CASES[name](70, 256), torch.get_num_threads()
    x = torch.randn(3, 256)
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(case.run(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.allclose(result, results[0], rtol=1e-5, atol=1e-5) for result in results)
    if linear.library() is not None:
        assert all(torch.equal(result, results[0]) for result in results)


# Refusals -------------------------------------------------------------------------------------------------------------

X, W8, S = torch.ones(2, 64), torch.ones(4, 64, dtype=torch.int8), torch.ones(4)
F8, I4 = W8.view(torch.float8_e4m3fn), torch.zeros(4, 8, dtype=torch.int32)
REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "other inputs": (lambda: bf16_linear(torch.ones(2, 63), torch.ones(4, 64).bfloat16()), "(2, 63)"),
    "a vector": (lambda: bf16_linear(torch.ones(64), torch.ones(4, 64).bfloat16()), "(64,)"),
    "no inputs": (lambda: bf16_linear(torch.ones(2, 0), torch.ones(4, 0).bfloat16()), "(2, 0)"),
    "a float32 weight": (lambda: bf16_linear(X, torch.ones(4, 64)), "torch.float32"),
    "float64 tokens": (lambda: bf16_linear(X.double(), torch.ones(4, 64).bfloat16()), "torch.float64"),
    "a transposed weight": (lambda: bf16_linear(X, torch.ones(64, 4).bfloat16().T), "strides (1, 4)"),
    "gradients": (lambda: bf16_linear(X.clone().requires_grad_(), torch.ones(4, 64).bfloat16()), "gradients"),
    "too few scales": (lambda: int8_linear(X, W8, S[:3], quantize_activations=True), "(3,)"),
    "bf16 row scales": (lambda: int8_linear(X, W8, S.bfloat16(), quantize_activations=True), "torch.bfloat16"),
    "strided scales": (lambda: int8_linear(X, W8, torch.ones(8)[::2], quantize_activations=True), "(2,)"),
    "wrong blocks": (lambda: fp8_linear(X, F8, torch.ones(2, 1), quantize_activations=True), "(2, 1)"),
    "a cap of zero": (lambda: fp8_linear(X, F8, S, quantize_activations=True, cap=0.0), "cap is 0.0"),
    "a cap that is none": (lambda: fp8_linear(X, F8, S, quantize_activations=True, cap=math.nan), "cap is nan"),
    "groups of 16": (lambda: int4_linear(X, I4, torch.ones(4, 4)), "(4, 4)"),
    "uneven groups": (lambda: int4_linear(X, I4, torch.ones(4, 3)), "(4, 3)"),
    "scales of a vector": (lambda: int4_linear(X, I4, torch.ones(4)), "(4,)"),
    "scales of other rows": (lambda: int4_linear(X, I4, torch.ones(3, 2)), "(3, 2)"),
    "unpacked int4": (lambda: int4_linear(X, W8.int(), torch.ones(4, 2)), "(4, 64)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_before_it_is_read(name: str) -> None:
    call, said = REFUSED[name]
    with pytest.raises(InputError) as caught:
        call()
    assert said in str(caught.value)
    assert caught.value.hint
