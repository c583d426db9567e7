"""Finding the model of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.errors import ArtifactError, InputError
from puna.recipes.run_folder import checkpoint_folder, index_folder, is_run


def test_the_last_trained_checkpoint_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lineage.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no model yet"):
        checkpoint_folder(tmp_path)
    (tmp_path / "pretrain" / "checkpoint").mkdir(parents=True)
    assert checkpoint_folder(tmp_path) == tmp_path / "pretrain" / "checkpoint"
    (tmp_path / "sft" / "checkpoint").mkdir(parents=True)
    assert checkpoint_folder(str(tmp_path)) == tmp_path / "sft" / "checkpoint"


def test_another_folder_is_a_checkpoint_itself(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    assert checkpoint_folder(tmp_path) == tmp_path
    assert index_folder(tmp_path) is None
    with pytest.raises(InputError, match="There is no folder"):
        checkpoint_folder(tmp_path / "missing")


def test_the_index_is_found_where_there_is_one(finished_run: Path, tmp_path: Path) -> None:
    folder = index_folder(finished_run)
    assert folder is not None
    assert folder.is_dir()
    (tmp_path / "lineage.json").write_text("{}")
    assert index_folder(tmp_path) is None
