from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puna.model.config import ModelConfig, RopeScaling, named_size
from puna.model.rope import Rope, frequencies, rotate

# Values computed by hand from Meta's formula (llama-models, llama3/model.py): pair -> radians a token.
GOLDEN = {
    (128, 8.0): {29: 2.166571e-3, 31: 8.567514e-4, 34: 1.785078e-4, 35: 9.556212e-5, 63: 3.068926e-7},
    (64, 32.0): {15: 1.290548e-3, 17: 9.708288e-5, 18: 1.946164e-5},
}
# The last pair that is kept, and the first that is divided by the factor.
BANDS = {(128, 8.0): (28, 35), (64, 32.0): (14, 18)}


@pytest.mark.parametrize(("head_dim", "factor"), GOLDEN)
def test_scaled_frequencies_are_the_published_ones(head_dim: int, factor: float) -> None:
    plain = frequencies(head_dim, 500_000.0, None)
    scaled = frequencies(head_dim, 500_000.0, RopeScaling(factor))
    for pair, value in GOLDEN[head_dim, factor].items():
        assert scaled[pair].item() == pytest.approx(value, rel=1e-6)
    kept, divided = BANDS[head_dim, factor]
    assert torch.equal(scaled[: kept + 1], plain[: kept + 1])
    assert torch.allclose(scaled[divided:], plain[divided:] / factor, rtol=1e-14)
    between = scaled[kept + 1 : divided]
    assert bool(((between < plain[kept + 1 : divided]) & (between > plain[kept + 1 : divided] / factor)).all())


def test_plain_frequencies() -> None:
    expected = [500_000.0 ** (-2 * i / 128) for i in range(64)]
    assert frequencies(128, 500_000.0, None).tolist() == pytest.approx(expected, rel=1e-14)


@given(
    head_dim=st.integers(1, 64).map(lambda half: 2 * half),
    theta=st.floats(1000, 1e7),
    factor=st.floats(1, 64),
    low=st.floats(0.5, 2),
    width=st.floats(0.5, 8),
    original=st.integers(64, 1 << 17),
)
@settings(max_examples=50)
def test_scaled_frequencies_follow_metas_branches(
    head_dim: int, theta: float, factor: float, low: float, width: float, original: int
) -> None:
    scaling = RopeScaling(factor, low, low + width, original)
    scaled = frequencies(head_dim, theta, scaling).tolist()
    for i, got in enumerate(scaled):
        f = theta ** (-2 * i / head_dim)
        wavelength = 2 * math.pi / f
        if wavelength < original / scaling.high_freq_factor:
            expected = f
        elif wavelength > original / scaling.low_freq_factor:
            expected = f / factor
        else:
            share = (original / wavelength - low) / width
            expected = (1 - share) * f / factor + share * f
        assert got == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "llama-3.2-1b", "llama-3-8b"])
def test_frequencies_are_those_of_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from puna.model.config import to_hf

    config = named_size(name)
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**to_hf(config, "float32"))).inv_freq
    ours = frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
    assert torch.allclose(ours, theirs.double(), rtol=1e-6, atol=0)


def test_far_positions_keep_their_angles(tiny) -> None:
    # At 131,071 a float32 angle would be off by up to 0.004 radians; the table is computed in float64.
    config = tiny(head_dim=128, rope_scaling=RopeScaling(8.0), max_position_embeddings=131072)
    positions = torch.tensor([[0, 1, 8191, 100_000, 131_071]])
    cos, sin = Rope(config).tables(positions, 131_072)
    angle = positions[0, :, None].double() * frequencies(128, config.rope_theta, config.rope_scaling)
    assert torch.allclose(cos[0, 0].double(), angle.cos(), atol=1e-7)
    assert torch.allclose(sin[0, 0].double(), angle.sin(), atol=1e-7)


def test_the_table_grows_without_changing(tiny) -> None:
    rope = Rope(tiny())
    positions = torch.arange(100)[None]
    before = rope.tables(positions, 100)
    rope.tables(torch.tensor([[2000]]), 2001)
    after = rope.tables(positions, 100)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_generation_does_not_rebuild_the_table_at_every_step(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = torch.outer
    monkeypatch.setattr(torch, "outer", lambda *args: calls.append(args) or original(*args))
    rope = Rope(tiny())
    for position in range(3000):
        rope.tables(torch.tensor([[position]]), position + 1)
    assert len(calls) <= 4


def test_a_model_built_without_memory_still_has_its_frequencies(tiny) -> None:
    with torch.device("meta"):
        rope = Rope(tiny())
    cos, _ = rope.tables(torch.zeros(1, 1, dtype=torch.int64), 1)
    assert torch.equal(cos, torch.ones_like(cos))


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=generator, dtype=torch.float64)
    rope = Rope(ModelConfig(hidden_size=16, num_attention_heads=1, num_key_value_heads=1, vocab_size=8))

    def product(query: int, key: int) -> float:
        turned = [
            rotate(x, *(t.double() for t in rope.tables(torch.tensor([[p]]), p + 1))) for x, p in ((q, query), (k, key))
        ]
        assert turned[0].norm().item() == pytest.approx(q.norm().item(), rel=1e-6)
        return float((turned[0] * turned[1]).sum())

    assert product(7, 3) == pytest.approx(product(507, 503), abs=1e-5)
    assert abs(product(7, 3) - product(8, 3)) > 1e-3


def test_rotation_turns_the_two_halves_as_complex_numbers(tiny) -> None:
    config = tiny()
    x = torch.randn(2, 3, 5, config.head_dim, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3, 4], [9, 8, 7, 6, 5]])
    turned = rotate(x, *Rope(config).tables(positions, 10))
    half = config.head_dim // 2
    angle = positions[:, None, :, None] * frequencies(config.head_dim, config.rope_theta, None)
    expected = torch.complex(x[..., :half].double(), x[..., half:].double()) * torch.exp(1j * angle)
    assert torch.allclose(turned.double(), torch.cat((expected.real, expected.imag), -1), atol=1e-6)


def test_rotation_keeps_the_dtype_and_computes_in_float32() -> None:
    x = torch.randn(1, 1, 4, 8, dtype=torch.bfloat16)
    rope = Rope(ModelConfig(hidden_size=8, num_attention_heads=1, num_key_value_heads=1, vocab_size=8))
    tables = rope.tables(torch.arange(4)[None], 4)
    turned = rotate(x, *tables)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), *tables).bfloat16())
