from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from puna.core.protocols import Objective
from puna.core.tokens import Batch
from puna.data.packing import fill, pack
from puna.data.shards import TokenShards
from puna.model.transformer import Transformer
from puna.train.objectives import OBJECTIVES, NextToken

Make = Callable[..., Transformer]
MakeShards = Callable[..., TokenShards]


def batch_of(shards: TokenShards, context: int = 16) -> Batch[Tensor]:
    packing = pack(shards.lengths, context)
    return fill(shards, packing, np.arange(packing.rows)).map(torch.from_numpy)


def gradients(model: Transformer, batch: Batch[Tensor]) -> tuple[Tensor, list[Tensor]]:
    loss = NextToken().loss(model, batch)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_is_the_sum_over_the_marked_tokens(tiny_model: Make, make_shards: MakeShards, masked: bool) -> None:
    model, batch = tiny_model(), batch_of(make_shards([5, 20, 9, 1, 13], masked))
    logits = model(batch.ids, batch.positions, batch.document_ids)
    expected = F.cross_entropy(logits[batch.loss_mask].double(), batch.targets[batch.loss_mask], reduction="sum")
    torch.testing.assert_close(NextToken().loss(model, batch).double(), expected)
    assert NextToken().count(batch) == int(batch.loss_mask.sum())
    if not masked:
        assert NextToken().count(batch) == sum([5, 20, 9, 1, 13]) - 5


def test_what_is_not_marked_teaches_nothing(tiny_model: Make, make_shards: MakeShards) -> None:
    model, batch = tiny_model(), batch_of(make_shards([12, 14, 9], masked=True))
    other = replace(batch, targets=torch.where(batch.loss_mask, batch.targets, 7))
    (loss, expected), (same, found) = gradients(model, batch), gradients(model, other)
    assert torch.equal(loss, same)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_only_tokens_that_are_read_for_a_marked_one_get_a_gradient(tiny_model: Make, make_shards: MakeShards) -> None:
    model, batch = tiny_model(), batch_of(make_shards([8, 8]), context=16)
    (row,) = batch.loss_mask
    row[:] = False
    row[3] = True  # the first segment's token 3 learns token 4, from tokens 0 to 3
    batch = replace(batch, ids=torch.arange(16)[None])
    _, grads = gradients(model, batch)
    table = grads[[name for name, _ in model.named_parameters()].index("embed_tokens.weight")]
    assert table.abs().sum(1).nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_a_batch_with_nothing_marked_is_a_loss_of_zero(tiny_model: Make, make_shards: MakeShards) -> None:
    batch = batch_of(make_shards([10, 10]))
    batch = replace(batch, loss_mask=torch.zeros_like(batch.loss_mask))
    loss, grads = gradients(tiny_model(), batch)
    assert NextToken().count(batch) == 0
    assert float(loss) == 0
    assert not any(grad.any() for grad in grads)


def test_objectives_are_found_by_name() -> None:
    assert {"next_token", "sft"} <= set(OBJECTIVES.names())
    assert all(isinstance(OBJECTIVES.get(name), Objective) for name in OBJECTIVES)


MEMORY = """
import json, sys
import torch
import torch.nn.functional as F
from puna.base.device import memory_used, peak_memory
from puna.model.heads import cross_entropy

torch.manual_seed(0)
hidden = torch.randn(1, 2048, 256, requires_grad=True)
weight = (torch.randn(128_256, 256) / 16).requires_grad_()
targets = torch.randint(0, 128_256, (1, 2048))
(torch.randn(64, 64, requires_grad=True) @ torch.randn(64, 64)).sum().backward()
before = memory_used()
if sys.argv[1] == "ours":
    loss = cross_entropy(hidden, weight, targets, torch.ones_like(targets, dtype=torch.bool)) / 2048
else:
    loss = F.cross_entropy(F.linear(hidden, weight)[0], targets[0])
loss.backward()
print(json.dumps([peak_memory() - before, loss.item(), hidden.grad.norm().item(), weight.grad.norm().item()]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it measures Linux's resident memory")
def test_a_large_vocabulary_takes_a_fifth_of_the_memory_of_the_plain_loss() -> None:
    def measure(mode: str) -> list[float]:
        done = subprocess.run([sys.executable, "-c", MEMORY, mode], capture_output=True, text=True, check=False)
        if done.returncode < 0:
            pytest.skip(f"the {mode} loss was killed: this machine has too little memory for it")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (ours, *numbers), (plain, *expected) = measure("ours"), measure("plain")
    print(f"peak above the inputs: {ours / 1e6:.0f} MB against {plain / 1e6:.0f} MB, a ratio of {ours / plain:.3f}")
    assert ours < plain / 5
    assert numbers == pytest.approx(expected, rel=1e-4)
