"""`puna train sft`: a checkpoint trained on the user's own conversations, as a run of one stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from puna.base.files import folder_lock, hash_file, hash_folder
from puna.base.progress import Progress
from puna.data.conversations import read_conversations
from puna.model.checkpoint import Checkpoint
from puna.recipes.run_folder import checkpoint_folder
from puna.recipes.runner import Runner, Stage, StageContext, StageRecord
from puna.recipes.stages.finetune import FinetuneConfig, tune


def tune_checkpoint(
    base: Path, conversations: Path, folder: Path, config: FinetuneConfig, device: str, progress: Progress
) -> StageRecord:
    """Fine-tunes `base` (a checkpoint or a run folder) on a JSONL file; resumes what was cut off.

    The new checkpoint is in `folder/sft`; `folder` is a run folder, so `puna chat` and `puna.load` take it.
    """
    source = checkpoint_folder(base)

    def work(context: StageContext) -> Mapping[str, Any]:
        return tune(context, Checkpoint.load(source), read_conversations(conversations), config, device)

    outside = partial(_hashes, source, conversations)
    stage = Stage("sft", "checkpoint", work, config, outside=outside, temporary=("state", "tokens"))
    with folder_lock(folder):
        return Runner(folder, [stage], progress).run()["sft"]


def _hashes(base: Path, conversations: Path) -> dict[str, str]:
    return {"base": hash_folder(base), "conversations": hash_file(conversations)}
