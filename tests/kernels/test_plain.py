"""The torch fallback itself; its products are tested in `test_linear`, which also runs without kernels."""

from __future__ import annotations

import pytest
import torch

from puna.kernels import plain


def test_int8_codes_are_symmetric_and_a_row_of_zeros_has_scale_zero() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    codes, scale = plain.quantize_int8(x)
    assert codes.tolist() == [[64, -127, 32], [0, 0, 0]]
    assert scale.flatten().tolist() == pytest.approx([2 / 127, 0])


def test_fp8_tokens_saturate_at_the_cap() -> None:
    values, scale = plain.quantize_fp8(torch.tensor([[1.0, 10.0], [0.0, 0.0]]), 4.0)
    assert values[0].tolist() == [112, 448]
    assert values[1].tolist() == [0, 0]
    assert scale.flatten().tolist() == pytest.approx([4 / 448, 1e-12 / 448])


def test_nibbles_unpack_lowest_first() -> None:
    word = sum(code << 4 * i for i, code in enumerate([0, 1, 7, 8, 9, 15, 8, 8]))
    packed = torch.tensor([[word]], dtype=torch.int64).to(torch.int32)
    got = plain.unpack_int4(packed, torch.tensor([[0.5]]), torch.float32)
    assert got.tolist() == [[-4.0, -3.5, -0.5, 0.0, 0.5, 3.5, 0.0, 0.0]]


def test_blocks_are_rounded_each_with_its_own_scale() -> None:
    x = torch.ones(1, 200)
    x[0, 130:] = 1000.0
    x[0, 5] = 0.3
    expected = x.clone()
    expected[0, 128:130] = 0.0  # small beside the largest of their block
    expected[0, 5] = 38 / 127
    assert torch.allclose(plain.round_blocks(x), expected, rtol=1e-6)


def test_block_scales_are_spread_over_rows_and_inputs() -> None:
    scale = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    got = plain.expand_blocks(scale, 127, 2, 130)
    assert got.shape == (2, 130)
    assert got[0, 127:].tolist() == [1, 2, 2]
    assert got[1, 127:].tolist() == [3, 4, 4]


def test_a_tall_weight_is_widened_tile_by_tile() -> None:
    asked = []
    weight = torch.randn(700, 16384)

    def widen(first: int, last: int) -> torch.Tensor:
        asked.append((first, last))
        return weight[first:last]

    x = torch.randn(2, 16384)
    assert torch.allclose(plain.tiled(x, 700, widen, torch.float32), x @ weight.T, rtol=1e-4, atol=1e-3)
    assert asked == [(0, 256), (256, 512), (512, 700)]
