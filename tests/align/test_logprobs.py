from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from puna.align.groups import GroupLoader
from puna.align.logprobs import last_tokens, sequence_logprobs
from puna.testing import tiny_model

SHAPES = [(3, 4, 5), (2, 6, 1), (5, 3, 3, 3), (1, 8, 8)]


@pytest.mark.parametrize("chunk_tokens", [0, 1, 5])
def test_packed_answers_have_the_logprobs_that_each_has_alone(make_groups: Callable, chunk_tokens: int) -> None:
    shards, groups = make_groups(SHAPES)
    loader = GroupLoader(shards, groups, 40, 40, 40, references=np.arange(len(shards)).astype(np.float32))
    batch, model = loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy), tiny_model()
    found, tokens = sequence_logprobs(model, batch, chunk_tokens)
    for value, count, segment in zip(found.tolist(), tokens.tolist(), batch.reference_S.int().tolist(), strict=True):
        ids = torch.from_numpy(shards.ids(segment, 0, 1000).astype(np.int64))
        mask = torch.from_numpy(np.array(shards.mask(segment, 0, 1000)))
        logprobs = model(ids[None, :-1])[0].log_softmax(-1).gather(1, ids[1:, None]).squeeze(1)
        assert value == pytest.approx(float(logprobs[mask[1:]].sum().detach()), abs=1e-4)
        assert count == int(mask[1:].sum())


def test_a_segment_with_nothing_marked_has_a_logprob_of_zero(make_groups: Callable) -> None:
    shards, groups = make_groups(SHAPES)
    loader = GroupLoader(shards, groups, 40, 40, 40)
    batch = loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)
    first = (batch.document_ids == 0) & (torch.arange(len(batch.ids)) == 0)[:, None]
    found, tokens = sequence_logprobs(tiny_model(), replace(batch, loss_mask=batch.loss_mask & ~first))
    assert (found[0], tokens[0]) == (0, 0)
    assert (found[1:] < 0).all()


def test_last_tokens_are_of_segments_and_not_of_padding(make_groups: Callable) -> None:
    shards, groups = make_groups(SHAPES)
    loader = GroupLoader(shards, groups, 40, 40, 40, references=np.arange(len(shards)).astype(np.float32))
    batch = loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)
    segments = batch.reference_S.int().tolist()
    lengths = shards.lengths[segments]
    assert (batch.document_ids < 0).any()
    last = last_tokens(batch)
    assert batch.positions.flatten()[last].tolist() == (lengths - 1).tolist()
    assert batch.ids.flatten()[last].tolist() == [int(shards.ids(s, 0, 1000)[-1]) for s in segments]
