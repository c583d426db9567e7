"""`puna train`."""

from __future__ import annotations

import json
from pathlib import Path

from puna.model.checkpoint import Checkpoint


def test_sft_on_a_file_gives_a_run_to_talk_to(puna, checkpoint: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    data.write_text(json.dumps(row) + "\n")
    settings = ("--set", "tokens=64", "--set", "batch_tokens=64", "--set", "context_length=64", "--set", "lora=none")
    code, out, err = puna("train", "sft", checkpoint, data, tmp_path / "run", *settings, "-q", "--device", "cpu")
    assert code == 0, err
    assert "talk to it" in out
    assert Checkpoint.load(tmp_path / "run" / "sft" / "checkpoint").tokenizer is not None
    assert puna("chat", tmp_path / "run", "-m", "a", "--set", "max_tokens=2")[0] == 0


def test_pretrain_on_documents(puna, checkpoint: Path, documents: Path, tmp_path: Path) -> None:
    settings = ("--set", "tokens=256", "--set", "batch_tokens=128", "--set", "context_length=64")
    code, out, err = puna("train", "pretrain", checkpoint, documents, tmp_path / "run", *settings, "-q")
    assert code == 0, err
    assert str(tmp_path / "run") in out
    assert (tmp_path / "run" / "pretrain" / "adapter").is_dir()
    assert not (tmp_path / "run" / "sft").exists()


def test_a_missing_file_is_named(puna, checkpoint: Path, tmp_path: Path) -> None:
    code, _, err = puna("train", "sft", checkpoint, tmp_path / "no.jsonl", tmp_path / "run", "-q")
    assert code == 4
    assert "no.jsonl" in err
