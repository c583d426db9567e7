"""A quantised output matrix behind the model's heads."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from puna.model.heads import cross_entropy, token_logprobs
from puna.quant.apply import quantize_model
from puna.quant.output import route_head, untie
from puna.quant.plan import QuantPlan
from puna.testing import tiny_model

HEAD = QuantPlan({"lm_head": "int8-wo"})


def test_untying_changes_no_logits_and_shares_or_copies_the_numbers(ids: torch.Tensor) -> None:
    model = tiny_model(tie_word_embeddings=True)
    before = model(ids).detach()
    copied = copy.deepcopy(model)
    untie(model)
    untie(copied, copy=True)
    assert torch.equal(model(ids), before)
    assert torch.equal(copied(ids), before)
    assert model.lm_head.weight.data_ptr() == model.embed_tokens.weight.data_ptr()
    assert copied.lm_head.weight.data_ptr() != copied.embed_tokens.weight.data_ptr()
    assert not model.config.tie_word_embeddings
    untie(model)
    assert torch.equal(model(ids), before)


def test_every_head_function_sees_the_quantised_matrix(ids: torch.Tensor) -> None:
    model = quantize_model(tiny_model(tie_word_embeddings=True), HEAD)
    hidden = model(ids, head=lambda h, _: h)
    weight = model.lm_head.dequantized()  # type: ignore[operator]
    expected = F.linear(hidden, weight)
    with torch.inference_mode():
        torch.testing.assert_close(model(ids), expected, rtol=1e-4, atol=1e-4)
    targets = ids.roll(-1, 1)
    wanted = expected.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    scored = model(ids, head=lambda h, w: token_logprobs(h, w, targets))
    torch.testing.assert_close(scored, wanted, rtol=1e-4, atol=1e-4)
    loss = model(ids, None, None, None, lambda h, w: cross_entropy(h, w, targets, targets >= 0))
    torch.testing.assert_close(loss, -wanted.sum(), rtol=1e-4, atol=1e-4)


def test_a_plain_head_is_left_alone_and_hooks_do_not_pile_up(ids: torch.Tensor) -> None:
    model = tiny_model()
    before = model(ids).detach()
    route_head(model)
    route_head(model)
    assert len(model._forward_pre_hooks) == 1
    assert torch.equal(model(ids), before)


def test_a_copy_computes_with_its_own_matrix(ids: torch.Tensor) -> None:
    model = quantize_model(tiny_model(), HEAD)
    twin = copy.deepcopy(model)
    with torch.inference_mode():
        before = model(ids).detach()
        model.lm_head.tensors["weight"].zero_()  # type: ignore[operator, union-attr]
        assert torch.equal(twin(ids), before)
        assert bool((model(ids) == 0).all())
