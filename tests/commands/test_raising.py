"""`puna raise` from its options to its exit code; what it makes is tested in tests/recipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = [
    "model.hidden_size=32", "model.intermediate_size=64", "model.num_hidden_layers=1", "model.num_attention_heads=2",
    "model.head_dim=16", "tokenizer.vocab_size=560", "pretrain.tokens=1024", "pretrain.context_length=64",
    "pretrain.final_context_length=0", "pretrain.batch_tokens=512", "sft.tokens=512", "sft.context_length=256",
    "sft.batch_tokens=512", "evaluate.tasks=2", "evaluate.max_answer_tokens=4", "evaluate.sample_tokens=4",
    "questions.built.passage_chars=150", "split.held_out=0.4",
]  # fmt: skip
OPTIONS = [part for setting in SETTINGS for part in ("--set", setting)]


def test_a_run_prints_what_came_of_it(puna, documents: Path, tmp_path: Path) -> None:
    code, out, _ = puna("raise", documents, "--out", tmp_path / "run", *OPTIONS, "-q")
    assert code == 0
    assert "bits a byte (xz -9e given the training text:" in out
    assert f"Talk to it: puna chat {tmp_path / 'run'}" in out
    code, out, _ = puna("raise", documents, "--out", tmp_path / "run", *OPTIONS, "-q", "--json")
    assert code == 0
    assert json.loads(out)["pretrain"]["steps"] == 2


def test_dry_run_shows_settings_and_plan_and_writes_nothing(puna, documents: Path, tmp_path: Path) -> None:
    code, out, _ = puna("raise", documents, "--out", tmp_path / "run", "--set", "pretrain.tokens=123456", "--dry-run")
    assert code == 0
    assert "tokens = 123456" in out
    assert "# pretrain: run" in out
    assert not (tmp_path / "run").exists()


def test_a_run_toml_is_a_whole_recipe(puna, documents: Path, tmp_path: Path) -> None:
    puna("raise", documents, "--out", tmp_path / "run", *OPTIONS, "-q", "--until", "split")
    code, out, _ = puna("raise", "--config", tmp_path / "run" / "run.toml", "--out", tmp_path / "other", "--dry-run")
    assert code == 0
    assert out.startswith((tmp_path / "run" / "run.toml").read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--set", "pretrain.token=5"], 2, "Did you mean 'tokens'?"),
        (["--set", "pretrain.tokens=many"], 2, "must be a whole number"),
        (["--set", "pretrain"], 2, "has no '='"),
        (["--size", "cria-3"], 2, "Did you mean 'cria-3m'?"),
        (["--until", "pretrian"], 2, "Did you mean 'pretrain'?"),
        (["--device", "tpu"], 2, "device is 'tpu'"),
        (["--config", "missing.toml"], 4, "There is no file missing.toml"),
        (["--base", "missing", "--set", "model.num_key_value_heads=2"], 2, "model is set, and so is base"),
    ],
)
def test_a_mistake_is_one_message_with_the_way_out(
    puna, documents: Path, tmp_path: Path, arguments, code, said
) -> None:
    found, _, err = puna("raise", documents, "--out", tmp_path / "run", *OPTIONS, *arguments, "-q")
    assert (found, said in err, "Traceback" in err) == (code, True, False), err


def test_a_base_that_is_not_there_is_refused_before_any_work(puna, documents: Path, tmp_path: Path) -> None:
    code, _, err = puna("raise", documents, "--out", tmp_path / "run", "--base", tmp_path / "missing", "-q")
    assert code == 3
    assert str(tmp_path / "missing") in err
    assert not (tmp_path / "run" / "read").exists()


def test_folders_that_hold_nothing_to_read(puna, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, _, err = puna("raise", empty, "--out", tmp_path / "run", "-q")
    assert code == 3
    assert str(empty) in err
    (empty / "image.png").write_bytes(b"\x89PNG\x00\x00")
    (empty / "broken.txt").write_bytes(b"\x00\x9f\xff" * 50)
    code, _, err = puna("raise", empty, "--out", tmp_path / "run", "-q")
    assert code == 3
    assert "broken.txt" in err
    assert ".png" in err
    code, _, err = puna("raise", tmp_path / "missing", "--out", tmp_path / "run", "-q")
    assert code == 3
    assert "missing" in err
    assert not list((tmp_path / "run").glob("read*/*.parquet"))


def test_a_folder_that_cannot_be_written_is_named(puna, documents: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = puna("raise", documents, "--out", tmp_path / "file" / "run", "-q")
    assert code == 5
    assert str(tmp_path / "file") in err
    assert "Traceback" not in err


def test_a_full_disk_ends_in_one_message_and_no_half_artifact(documents: Path, tmp_path: Path) -> None:
    """In a mount of 300 KiB of its own, where the system allows one."""
    small = tmp_path / "small"
    small.mkdir()
    options = " ".join(OPTIONS)
    command = (
        f"mount -t tmpfs -o size=300k none {small} && {sys.executable} -m puna raise {documents} --out {small}/run "
        f"{options} -q; code=$?; ls {small}/run; exit $code"
    )
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", small], capture_output=True).returncode:
        pytest.skip("this system does not let a user mount a file system of their own")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 5, done.stderr
    assert "full" in done.stderr or "free" in done.stderr
    assert str(small) in done.stderr
    assert "Traceback" not in done.stderr
    finished = [name for name in done.stdout.split() if not name.endswith(".partial")]
    assert "sft" not in finished
