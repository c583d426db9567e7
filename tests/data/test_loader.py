from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError
from puna.core.tokens import Batch
from puna.data.loader import Curriculum, Loader
from puna.data.shards import TokenShards, write_shards

CONTEXT = 8


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 30, 40)
    segments = [(generator.integers(0, 1000, n), None) for n in lengths]
    return write_shards(tmp_path_factory.mktemp("loader") / "tokens", segments, 1000)


def loader(shards: TokenShards, rows: int = 4, micro_rows: int = 2, seed: int = 0, context: int = CONTEXT) -> Loader:
    return Loader(shards, context, rows * context, micro_rows * context, seed=seed)


def digest(batches: list[Batch[np.ndarray]]) -> str:
    arrays = [getattr(batch, field.name) for batch in batches for field in fields(batch)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_any_step_can_be_asked_for_in_any_order(shards: TokenShards) -> None:
    in_order = [digest(loader(shards).micro_batches(step)) for step in range(60)]
    assert len(set(in_order)) == 60
    random_access = loader(shards)
    for step in [59, 0, 31, 30, 59, 1]:
        assert digest(random_access.micro_batches(step)) == in_order[step]


def test_another_process_gives_the_same_batches(shards: TokenShards, tmp_path: Path) -> None:
    for name in ("tokens.bin", "offsets.npy", "card.json"):
        source = Path(shards._ids.filename or "").parent / name
        (tmp_path / name).write_bytes(source.read_bytes())
    code = """
import sys
from dataclasses import fields
import hashlib
from puna.data.loader import Loader
from puna.data.shards import TokenShards
loader = Loader(TokenShards(sys.argv[1]), 8, 32, 16, seed=3)
batches = [batch for step in (0, 7, 50) for batch in loader.micro_batches(step)]
arrays = [getattr(batch, field.name) for batch in batches for field in fields(batch)]
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
assert "torch" not in sys.modules
"""
    ours = loader(shards, seed=3)
    wanted = digest([batch for step in (0, 7, 50) for batch in ours.micro_batches(step)])
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == wanted, done.stderr


@given(rows=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_each_epoch_visits_each_row_once(shards: TokenShards, rows: int, seed: int) -> None:
    source = loader(shards, rows=rows, seed=seed)
    total = source.packing.rows
    seen = np.concatenate([source.order.of_step(step) for step in range(-(-3 * total // rows))])
    for epoch in range(3):
        assert sorted(seen[epoch * total : (epoch + 1) * total]) == list(range(total))
    assert source.steps_per_epoch == pytest.approx(total / rows)


def test_the_order_changes_with_the_epoch_and_the_seed(shards: TokenShards) -> None:
    source = loader(shards, rows=1)
    total = source.packing.rows
    orders = [[int(source.order.of_step(epoch * total + i)[0]) for i in range(total)] for epoch in range(3)]
    orders.append([int(loader(shards, rows=1, seed=1).order.of_step(i)[0]) for i in range(total)])
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(("micro_rows", "sizes"), [(1, [1] * 6), (2, [2, 2, 2]), (4, [4, 2]), (6, [6]), (100, [6])])
def test_micro_batches_are_the_steps_rows_in_order(shards: TokenShards, micro_rows: int, sizes: list[int]) -> None:
    parts = loader(shards, rows=6, micro_rows=micro_rows).micro_batches(3)
    (whole,) = loader(shards, rows=6, micro_rows=6).micro_batches(3)
    assert [len(part.ids) for part in parts] == sizes
    for field in fields(whole):
        together = np.concatenate([getattr(part, field.name) for part in parts])
        assert (together == getattr(whole, field.name)).all()


def test_a_micro_batch_holds_a_row_at_least(shards: TokenShards) -> None:
    parts = Loader(shards, CONTEXT, 2 * CONTEXT, 1).micro_batches(0)
    assert [part.ids.shape for part in parts] == [(1, CONTEXT)] * 2


def test_a_batch_that_holds_no_row_is_refused(shards: TokenShards) -> None:
    with pytest.raises(ConfigError, match=r"batch_tokens is 7; .* context_length 8"):
        Loader(shards, CONTEXT, 7, 7)


def test_conversations_are_not_cut(shards: TokenShards) -> None:
    source = Loader(shards, 16, 32, 32, split=False)
    assert source.packing.left_out == int((shards.lengths > 16).sum()) > 0
    assert Loader(shards, 16, 32, 32).packing.left_out == 0


def test_a_curriculum_changes_at_its_boundaries(shards: TokenShards) -> None:
    phases = [loader(shards, context=8), loader(shards, context=16), loader(shards, context=32)]
    curriculum = Curriculum([(0, phases[0]), (3, phases[1]), (10, phases[2])])
    for step, (phase, within) in {0: (0, 0), 2: (0, 2), 3: (1, 0), 9: (1, 6), 10: (2, 0), 99: (2, 89)}.items():
        assert digest(curriculum.micro_batches(step)) == digest(phases[phase].micro_batches(within))


@pytest.mark.parametrize("firsts", [[], [1], [0, 5, 3], [0, 0], [0, 4, 4]])
def test_phases_that_do_not_rise_from_zero_are_refused(shards: TokenShards, firsts: list[int]) -> None:
    with pytest.raises(ConfigError, match="must rise from 0"):
        Curriculum([(first, loader(shards)) for first in firsts])
