from __future__ import annotations

import pytest
import torch

from puna.model.init import InitConfig, initialize
from puna.model.transformer import Transformer


def weights(config, seed: int = 0, scales: InitConfig | None = None) -> dict[str, torch.Tensor]:
    return dict(initialize(Transformer(config), seed, scales).state_dict())


def test_a_seed_gives_the_same_weights_and_another_gives_others(tiny) -> None:
    first, again, other = weights(tiny(), 1), weights(tiny(), 1), weights(tiny(), 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embed_tokens.weight"], other["embed_tokens.weight"])


def test_the_state_of_torch_is_left_alone(tiny) -> None:
    model = Transformer(tiny())
    before = torch.get_rng_state()
    initialize(model, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_block_starts_as_the_identity(tiny) -> None:
    model = initialize(Transformer(tiny()), 0)
    ids = torch.arange(10)[None]
    hidden = model(ids, head=lambda hidden, _: hidden)
    assert torch.equal(hidden, model.norm(model.embed_tokens(ids)))


def test_scales_are_those_of_the_config(tiny) -> None:
    config = tiny(hidden_size=256, intermediate_size=512, vocab_size=1000)
    drawn = weights(config, scales=InitConfig(embedding_std=0.1, linear_gain=0.5, zero_residual=False))
    expected = {
        "embed_tokens.weight": 0.1,
        "lm_head.weight": 0.5 / 16,
        "layers.1.self_attn.q_proj.weight": 0.5 / 16,
        "layers.1.mlp.up_proj.weight": 0.5 / 16,
        "layers.1.self_attn.o_proj.weight": 0.5 / 16 / 2,
        "layers.1.mlp.down_proj.weight": 0.5 / 512**0.5 / 2,
    }
    for name, std in expected.items():
        assert drawn[name].std().item() == pytest.approx(std, rel=0.05), name
        assert abs(drawn[name].mean().item()) < 0.1 * std
    assert torch.equal(drawn["norm.weight"], torch.ones(256))


def test_the_first_loss_is_that_of_a_uniform_guess(tiny) -> None:
    config = tiny(vocab_size=500, tie_word_embeddings=True)
    model = initialize(Transformer(config), 0)
    logits = model(torch.arange(100)[None])
    loss = torch.nn.functional.cross_entropy(logits[0], torch.arange(100, 200))
    assert loss.item() == pytest.approx(torch.tensor(500.0).log().item(), abs=0.1)
