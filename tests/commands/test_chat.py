"""`puna chat`: one question, a pipe, settings, and a checkpoint that is none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

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
