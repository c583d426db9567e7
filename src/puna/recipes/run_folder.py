"""Where things are in a run folder: the best checkpoint, the index of passages, the report.

It imports no stage, so that finding a model does not load the machinery that made it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from puna.base.errors import ArtifactError, InputError

if TYPE_CHECKING:
    from puna.engine.config import EngineConfig
    from puna.engine.local import LocalModel
    from puna.model.checkpoint import Checkpoint

LINEAGE = "lineage.json"
CHECKPOINT = "checkpoint"
INDEX = "index/passages"
REPORT = "report.html"
# The stages that make checkpoints, the last first.
_MODEL_STAGES = ("sft", "pretrain")


def is_run(path: Path | str) -> bool:
    return (Path(path) / LINEAGE).exists()


def checkpoint_folder(path: Path | str) -> Path:
    """The checkpoint of the last training stage of a run; another folder is taken to be a checkpoint itself."""
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"There is no folder {path}.", hint="Give a run folder of puna raise, or a checkpoint.")
    if not is_run(path):
        return path
    for stage in _MODEL_STAGES:
        if (path / stage / CHECKPOINT).exists():
            return path / stage / CHECKPOINT
    raise ArtifactError(
        f"The run {path} has no model yet.", hint="Run puna raise on it again; it goes on where it was."
    )


def load_model(
    path: Path | str,
    dtype: str = "float32",
    device: str = "auto",
    *,
    allow_pickle: bool = False,
    config: EngineConfig | None = None,
) -> LocalModel:
    """The model of a run, of a checkpoint folder, quantised or not, or of a GGUF file; see `LocalModel.load`."""
    from puna.engine.local import LocalModel
    from puna.export import compressed_tensors, gguf

    folder = checkpoint_folder(path)
    if folder.is_file():
        return LocalModel.of(gguf.load(folder), folder, dtype, device, config=config)
    if not compressed_tensors.is_quantized(folder):
        return LocalModel.load(folder, dtype, device, allow_pickle=allow_pickle, config=config)
    model = compressed_tensors.load_model(folder, dtype)
    return LocalModel.of_model(model, folder, device, config=config)


def open_floats(path: Path | str, quantized_dtype: str = "float32", *, allow_pickle: bool = False) -> Checkpoint:
    """The checkpoint of a run, of a folder of any layout, or of a GGUF file, with floating-point weights.

    Args:
        path: of it.
        quantized_dtype: of the weights of a quantised folder; blocks of a GGUF file are float32.
        allow_pickle: whether Meta's files may be read.
    """
    from puna.export import compressed_tensors, gguf
    from puna.model.checkpoint import Checkpoint

    folder = checkpoint_folder(path)
    if folder.is_file():
        return gguf.load(folder)
    if compressed_tensors.is_quantized(folder):
        return compressed_tensors.load_dequantized(folder, quantized_dtype)
    return Checkpoint.load(folder, allow_pickle=allow_pickle)


def index_folder(path: Path | str) -> Path | None:
    """The index of a run's passages, where there is one."""
    folder = Path(path).expanduser() / INDEX
    return folder if is_run(path) and folder.exists() else None
