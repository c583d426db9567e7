from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

from puna.model.config import RopeScaling
from puna.model.heads import cross_entropy
from puna.model.transformer import RMSNorm, Transformer, shapes, without_memory


def ids_of(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 96, shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm_computes_in_float32() -> None:
    norm = RMSNorm(64, 1e-5)
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    x = torch.randn(3, 64, dtype=torch.float64) * 1000
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    assert torch.allclose(norm(x.float()).double(), expected, atol=1e-5)
    low = norm(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.double(), expected, rtol=0.02, atol=0.02)


@torch.no_grad()
def test_a_token_sees_nothing_after_it(tiny, random_model) -> None:
    model = random_model(tiny())
    ids = ids_of((1, 12))
    other = ids.clone()
    other[0, 8:] = (other[0, 8:] + 1) % 96
    assert torch.equal(model(ids)[:, :8], model(other)[:, :8])
    assert not torch.allclose(model(ids)[:, 8:], model(other)[:, 8:])


@pytest.mark.parametrize("training", [False, True])
def test_packed_documents_are_as_if_alone(tiny, random_model, training: bool) -> None:
    model = random_model(tiny()).train(training)
    lengths = [5, 1, 9]
    rows = [ids_of((n,), seed=n) for n in lengths]
    packed = torch.cat(rows)[None]
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    logits = model(packed, positions, documents)[0]
    alone = torch.cat([model(row[None])[0] for row in rows])
    assert torch.allclose(logits, alone, atol=1e-6)


def test_packed_documents_have_the_gradients_of_rows(tiny, random_model) -> None:
    one, two = random_model(tiny()), random_model(tiny())
    rows = ids_of((2, 6))
    documents, positions = torch.tensor([[0] * 6 + [1] * 6]), torch.arange(6).repeat(2)[None]
    mask = torch.ones(2, 6, dtype=torch.bool)
    one(rows, head=lambda h, w: cross_entropy(h, w, rows, mask)).backward()
    two(
        rows.view(1, 12),
        positions,
        documents,
        head=lambda h, w: cross_entropy(h, w, rows.view(1, 12), mask.view(1, 12)),
    ).backward()
    for (name, x), y in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.allclose(x.grad, y.grad, atol=1e-5, rtol=1e-4), name


@torch.no_grad()
def test_all_rows_of_a_batch_are_independent(tiny, random_model) -> None:
    model = random_model(tiny())
    ids = ids_of((4, 10))
    whole = model(ids)
    for b in range(4):
        assert torch.allclose(model(ids[b : b + 1])[0], whole[b], atol=1e-5)


@torch.no_grad()
def test_only_distances_between_positions_matter(tiny, random_model) -> None:
    model = random_model(tiny(rope_scaling=RopeScaling(8.0)))
    ids = ids_of((1, 10))
    shifted = model(ids, torch.arange(200, 210)[None])
    assert torch.allclose(model(ids), shifted, atol=1e-3)
    spread = model(ids, torch.arange(0, 20, 2)[None])
    assert not torch.allclose(model(ids), spread, atol=1e-2)


def test_tied_models_have_one_matrix(tiny, random_model) -> None:
    model = random_model(tiny(tie_word_embeddings=True))
    assert not hasattr(model, "lm_head")
    assert model.head_weight_VD is model.embed_tokens.weight
    ids = ids_of((1, 4))
    model(ids).sum().backward()
    unseen = next(i for i in range(96) if i not in ids)
    assert float(model.embed_tokens.weight.grad[unseen].abs().sum()) > 0  # reached through the output only


def test_the_head_runs_inside(tiny, random_model) -> None:
    model = random_model(tiny())
    hidden, weight = model(ids_of((2, 3)), head=lambda hidden, weight: (hidden, weight))
    assert hidden.shape == (2, 3, 32)
    assert weight is model.lm_head.weight
    assert torch.allclose(hidden @ weight.T, model(ids_of((2, 3))), atol=1e-5)


def test_autocast_trains_float32_weights(tiny, random_model) -> None:
    model = random_model(tiny())
    ids = ids_of((2, 8))
    exact = model(ids).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(ids)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, exact, atol=0.1 * float(exact.abs().max()))
    rough.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@torch.no_grad()
def test_half_precision_weights_give_float32_logits(tiny, random_model) -> None:
    model = random_model(tiny())
    exact = model(ids_of((1, 8)))
    for dtype in (torch.bfloat16, torch.float16):
        logits = copy.deepcopy(model).to(dtype)(ids_of((1, 8)))
        assert logits.dtype == torch.float32
        assert torch.allclose(logits, exact, atol=0.1 * float(exact.abs().max()))


@torch.no_grad()
def test_an_empty_row_gives_empty_logits(tiny, random_model) -> None:
    assert random_model(tiny())(torch.zeros(1, 0, dtype=torch.int64)).shape == (1, 0, 96)


def test_shapes_are_those_of_the_parameters(tiny) -> None:
    for config in (tiny(), tiny(tie_word_embeddings=True, head_dim=20)):
        model = Transformer(config)
        assert dict(shapes(config)) == {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_a_model_without_memory_draws_nothing(tiny) -> None:
    before = torch.get_rng_state()
    model = without_memory(tiny())
    assert all(parameter.is_meta and parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    script = """
import sys
from puna.model.config import ModelConfig
from puna.model.transformer import shapes
shapes(ModelConfig())
sys.exit("sympy" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
