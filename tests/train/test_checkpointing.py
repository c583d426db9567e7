from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from puna.base.errors import ArtifactError
from puna.train import checkpointing
from puna.train.checkpointing import TrainingState, load_state, random_states, restore_random_states, save_state


def state(step: int = 3) -> TrainingState:
    tensors = {
        "model/a.b": torch.randn(5, 7, generator=torch.Generator().manual_seed(step)),
        "model/half": torch.linspace(-1, 1, 4).bfloat16(),
        "optimizer/a.b/step": torch.tensor(3.0),
        "integers": torch.tensor([2**53 + 1, -1]),
        "bytes": torch.tensor([0, 255], dtype=torch.uint8),
        "transposed": torch.arange(12.0).reshape(3, 4).T,
        "special": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
    }
    return TrainingState(tensors, {"step": step, "tokens": 10**12, "seconds": 0.1})


def assert_same(found: TrainingState | None, expected: TrainingState) -> None:
    assert found is not None
    assert found.values == expected.values
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        other = found.tensors[name]
        assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape), name
        bits, other_bits = (t.contiguous().view(-1).view(torch.uint8) for t in (tensor, other))
        assert torch.equal(bits, other_bits), name


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    save_state(tmp_path / "state", state())
    assert_same(load_state(tmp_path / "state"), state())


def test_a_later_state_replaces_the_whole_folder(tmp_path: Path) -> None:
    save_state(tmp_path / "state", state())
    later = TrainingState({"other": torch.ones(2)}, {"step": 4})
    save_state(tmp_path / "state", later)
    assert_same(load_state(tmp_path / "state"), later)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_where_there_is_nothing_there_is_no_state(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state") is None


def test_a_state_whose_replacement_was_cut_off_is_found_again(tmp_path: Path) -> None:
    save_state(tmp_path / "state", state())
    (tmp_path / "state").rename(tmp_path / ".state.old")
    assert_same(load_state(tmp_path / "state"), state())


@pytest.mark.parametrize("file", ["values.json", "tensors/.metadata", "tensors/__0_0.distcp"])
@pytest.mark.parametrize("share", [None, 0.0, 0.5, 0.9])
def test_a_damaged_state_is_an_artifact_error(tmp_path: Path, file: str, share: float | None) -> None:
    folder = tmp_path / "state"
    save_state(folder, state())
    path = folder / file
    if share is None:
        path.unlink()
    else:
        os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(ArtifactError, match=r"state") as caught:
        load_state(folder)
    assert "Delete" in caught.value.hint or share is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_save_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    save_state(tmp_path / "state", state())

    class Interrupting(checkpointing.dcp.FileSystemWriter):
        def write_data(self, plan, planner):  # type: ignore[no-untyped-def]
            raise error

    save = checkpointing.dcp.save
    monkeypatch.setattr(
        checkpointing.dcp,
        "save",
        lambda tensors, checkpoint_id, **rest: save(tensors, storage_writer=Interrupting(checkpoint_id), **rest),
    )
    with pytest.raises(error):
        save_state(tmp_path / "state", state(step=4))
    assert_same(load_state(tmp_path / "state"), state())
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


FULL = """
import os, sys
from pathlib import Path
import torch
from puna.base.errors import StorageError
from puna.train.checkpointing import TrainingState, load_state, save_state

folder = Path(sys.argv[1]) / "state"
save_state(folder, TrainingState({"a": torch.arange(1000)}, {"step": 1}))
for size in (1, 5, 50):
    try:
        save_state(folder, TrainingState({f"b{i}": torch.zeros(size * 10_000) for i in range(60 // size + 1)}, {}))
    except StorageError as error:
        assert "the disk is full" in error.message, error
    else:
        raise AssertionError("it was not refused")
    assert os.listdir(folder.parent) == ["state"]
    state = load_state(folder)
    assert state.values == {"step": 1} and torch.equal(state.tensors["a"], torch.arange(1000))
"""


def test_a_full_disk_leaves_the_state_before(small_filesystem: Callable[..., None]) -> None:
    small_filesystem(FULL)


@pytest.mark.parametrize("half_pair", [False, True])
def test_random_numbers_go_on_as_if_nothing_had_happened(tmp_path: Path, half_pair: bool) -> None:
    def draw() -> list[float]:
        numbers = [torch.rand(()).item(), torch.randn(()).item(), random.random(), random.gauss(0, 1)]
        return [*numbers, np.random.random(), np.random.standard_normal()]

    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        if half_pair:  # a normal number is drawn with its twin, which waits for the next call
            random.gauss(0, 1)
            np.random.standard_normal()
        save_state(tmp_path / "state", TrainingState(random_states()))
        expected = [draw() for _ in range(3)]
        loaded = load_state(tmp_path / "state")
        assert loaded is not None
        restore_random_states(loaded.tensors)
        assert [draw() for _ in range(3)] == expected
