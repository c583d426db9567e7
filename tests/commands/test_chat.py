"""`puna chat`: one question, a pipe, settings, and a checkpoint that is none."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from puna.core.document import Document
from puna.knowledge.index import PassageIndex
from puna.reader.ranker import Ranker
from puna.recipes.reading import RANKER

SETTINGS = ("--set", "max_tokens=8", "--set", "seed=1")


def test_one_question_is_answered(puna, checkpoint: Path) -> None:
    code, out, _ = puna("chat", checkpoint, "-m", "hello", *SETTINGS)
    assert code == 0
    assert out.endswith("\n")
    again = puna("chat", checkpoint, "-m", "hello", *SETTINGS)
    assert again[1] == out


def test_piped_text_is_a_question(puna, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = puna("chat", checkpoint, "-m", "hello", *SETTINGS)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    assert puna("chat", checkpoint, *SETTINGS) == asked


def test_an_unknown_setting_suggests_the_near_one(puna, checkpoint: Path) -> None:
    code, _, err = puna("chat", checkpoint, "-m", "hello", "--set", "temprature=1")
    assert code == 2
    assert "temperature" in err


def test_a_folder_without_a_model_is_named(puna, tmp_path: Path) -> None:
    code, _, err = puna("chat", tmp_path / "missing", "-m", "hello")
    assert code == 3
    assert "missing" in err
    code, _, err = puna("chat", tmp_path, "-m", "hello")
    assert code == 4
    assert "no checkpoint" in err


def test_a_run_with_a_reader_answers_by_a_quotation(puna, checkpoint: Path, tmp_path: Path) -> None:
    text = 'def copyfile(src, dst):\n    """Copy a file."""\n'
    document = Document(text, "d", "shutil.py", meta={"kind": "python"})
    PassageIndex.build(tmp_path / "index" / "passages", [document], 600).close()
    shutil.copytree(checkpoint, tmp_path / "sft" / "checkpoint")
    (tmp_path / "lineage.json").write_text("{}")
    (tmp_path / RANKER).mkdir(parents=True)
    Ranker({"<any>": 0}, {"role:opening": 0}, np.full((1, 1), 20, np.float32)).save(tmp_path / RANKER)
    code, out, err = puna("chat", tmp_path, "-m", "What does copyfile do?")
    assert (code, out) == (0, "Copy a file.\n")
    assert "[shutil.py, characters 31 to 43;" in err
    _, plain, _ = puna("chat", tmp_path, "-m", "What does copyfile do?", "--no-documents", *SETTINGS)
    assert plain != out
