"""Training state on disk: everything that the next step depends on, so that a resumed run is bitwise the run that was
never stopped.

Tensors are written with torch's distributed checkpoint, which can be read again by another number of ranks; what is
no tensor stands beside it as JSON. The folder is replaced as a whole, so a process killed while saving leaves the
state before.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from puna.base.errors import ArtifactError
from puna.base.files import atomic_folder, read_json, recover_folder, write_json


@dataclass(slots=True)
class TrainingState:
    """A moment of a run.

    Attributes:
        tensors: parameters, optimizer state and random-number states, by name.
        values: JSON values: the step, and what has been counted so far.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict)


def save_state(folder: Path, state: TrainingState) -> None:
    """Writes `state` atomically over what stood in `folder`."""
    with atomic_folder(folder) as temporary:
        with _one_process():
            dcp.save(dict(state.tensors), checkpoint_id=temporary / "tensors", no_dist=True)
        write_json(temporary / "values.json", state.values)


def load_state(folder: Path) -> TrainingState | None:
    """Reads what `save_state` wrote; None where there is nothing."""
    recover_folder(folder)
    if not folder.exists():
        return None
    values = read_json(folder / "values.json")
    reader = dcp.FileSystemReader(folder / "tensors")
    try:
        stored = reader.read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(item.size, dtype=item.properties.dtype)
            for name, item in stored.items()
            if isinstance(item, TensorStorageMetadata)
        }
        with _one_process():
            dcp.load(tensors, storage_reader=reader, no_dist=True)
    except Exception as error:  # dcp's reader meets errors of any type in a damaged file
        raise ArtifactError(
            f"The training state in {folder} cannot be read: {error}.",
            hint="Delete that folder to start this stage anew.",
        ) from error
    return TrainingState(tensors, values)


@contextmanager
def _one_process() -> Iterator[None]:
    """Silences dcp's remark that there is no process group, which `no_dist` has told it, and unwraps its errors.

    dcp wraps whatever it meets, a full disk as well as Ctrl-C, into an error that is no `Exception`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            yield
        except CheckpointException as wrapper:
            error, _ = next(iter(wrapper.failures.values()))
            raise _refusal_of_the_disk(error) or error from None


def _refusal_of_the_disk(error: BaseException | None) -> OSError | None:
    """The error of the operating system that came before `error`: torch.save covers it with one about its archive."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def random_states() -> dict[str, Tensor]:
    """The states of all random-number generators: torch's on each device, numpy's and Python's."""
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    _, python_state, gauss = random.getstate()
    states = {
        "random/torch": torch.get_rng_state(),
        "random/numpy": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "random/numpy_rest": torch.tensor(
            [numpy_state["state"]["pos"], numpy_state["has_gauss"], numpy_state["gauss"]], dtype=torch.float64
        ),
        "random/python": torch.tensor(python_state, dtype=torch.int64),
        "random/python_gauss": torch.tensor(float("nan") if gauss is None else gauss, dtype=torch.float64),
    }
    if torch.cuda.is_available():
        for i, state in enumerate(torch.cuda.get_rng_state_all()):
            states[f"random/cuda/{i}"] = state
    return states


def restore_random_states(states: dict[str, Tensor]) -> None:
    """Takes back what `random_states` gave."""
    torch.set_rng_state(states["random/torch"])
    position, has_gauss, numpy_gauss = states["random/numpy_rest"].tolist()
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": states["random/numpy"].numpy().astype(np.uint32), "pos": int(position)},
            "has_gauss": int(has_gauss),
            "gauss": numpy_gauss,
        }
    )
    gauss = states["random/python_gauss"].item()
    random.setstate((3, tuple(states["random/python"].tolist()), None if gauss != gauss else gauss))
    for name, state in states.items():
        if name.startswith("random/cuda/"):
            torch.cuda.set_rng_state(state, int(name.rsplit("/", 1)[1]))
