from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from puna.align.groups import GroupLoader
from puna.align.logprobs import sequence_logprobs
from puna.align.reference import content_key, reference_logprobs
from puna.base.progress import Lines
from puna.testing import tiny_model

SHAPES = [(3, 4, 5), (2, 6, 1), (5, 3, 3, 3), (1, 8, 8)]


def never(*_: object) -> None:
    raise AssertionError("the reference was asked again")


@pytest.mark.parametrize("micro_batch_tokens", [8, 40, 8192])
def test_references_are_what_the_model_says(make_groups: Callable, tmp_path: Path, micro_batch_tokens: int) -> None:
    shards, groups = make_groups(SHAPES)
    model = tiny_model().train()
    found = reference_logprobs(model, shards, tmp_path / "kept", micro_batch_tokens=micro_batch_tokens)
    assert (found.origin, model.training) == ("computed", True)
    loader = GroupLoader(shards, groups, 64, 64, 64, references=found.logprobs_N)
    batch = loader.batch(np.arange(loader.packing.rows)).map(torch.from_numpy)
    torch.testing.assert_close(sequence_logprobs(model, batch)[0].detach(), batch.reference_S, atol=1e-4, rtol=1e-5)


def test_a_second_run_reads_them_and_asks_no_model(make_groups: Callable, tmp_path: Path) -> None:
    shards, _ = make_groups(SHAPES)
    model = tiny_model()
    first = reference_logprobs(model, shards, tmp_path / "kept")
    model.register_forward_pre_hook(never)
    second = reference_logprobs(model, shards, tmp_path / "kept")
    assert (second.origin, second.path) == ("read", first.path)
    assert np.array_equal(first.logprobs_N, second.logprobs_N)


def test_other_weights_tokens_masks_and_dtypes_have_other_names(make_groups: Callable) -> None:
    shards, _ = make_groups(SHAPES)
    other, _ = make_groups([*SHAPES[:-1], (2, 7, 7)], name="other")  # as long, other masks
    assert np.array_equal(shards.lengths, other.lengths)
    changed = tiny_model()
    with torch.no_grad():
        changed.norm.weight[3] += 1e-3
    keys = {
        content_key(tiny_model(), shards, torch.float32),
        content_key(changed, shards, torch.float32),
        content_key(tiny_model(), other, torch.float32),
        content_key(tiny_model(), shards, torch.bfloat16),
    }
    assert len(keys) == 4
    assert content_key(tiny_model(), shards, torch.float32) in keys


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damage_is_told_and_mended(make_groups: Callable, tmp_path: Path, damage: str) -> None:
    shards, _ = make_groups(SHAPES)
    first = reference_logprobs(tiny_model(), shards, tmp_path / "kept")
    data = bytearray(first.path.read_bytes())
    data[-2] ^= 1
    first.path.write_bytes({"cut": bytes(data[:-7]), "flipped": bytes(data), "empty": b""}[damage])
    said = io.StringIO()
    second = reference_logprobs(tiny_model(), shards, tmp_path / "kept", progress=Lines(said))
    assert second.origin == "recomputed"
    assert str(first.path) in said.getvalue()
    assert "damaged" in said.getvalue()
    assert np.array_equal(first.logprobs_N, second.logprobs_N)
    assert reference_logprobs(tiny_model(), shards, tmp_path / "kept").origin == "read"
