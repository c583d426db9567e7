"""The whole recipe on a tiny scale: what a run leaves behind, what is skipped, and what a kill loses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from puna.base.config import from_dict, override, read_toml
from puna.base.errors import BusyError, ConfigError, InputError
from puna.base.files import folder_lock
from puna.base.progress import Silent
from puna.model.checkpoint import Checkpoint
from puna.recipes.raising import RaiseConfig, from_base, raise_model, scratch, scratch_sizes, stages

STAGES = [
    "read", "split", "tokenizer", "tokens", "questions", "index", "reader", "pretrain", "encoder", "sft",
    "quantize", "evaluate", "report",
]  # fmt: skip


def test_a_run_leaves_every_artifact(finished_run: Path) -> None:
    assert [stage["name"] for stage in json.loads((finished_run / "lineage.json").read_text())["stages"]] == STAGES
    for name in ("run.toml", "metrics.jsonl", "report.html"):
        assert (finished_run / name).stat().st_size > 0
    assert not list(finished_run.glob("*.partial"))
    assert not (finished_run / "pretrain" / "state").exists()


def test_run_toml_holds_the_whole_config(finished_run: Path, tiny: RaiseConfig) -> None:
    assert from_dict(RaiseConfig, read_toml(finished_run / "run.toml")) == tiny


def test_lineage_leads_from_the_model_back_to_the_documents(finished_run: Path, documents: Path) -> None:
    lineage = {s["name"]: s for s in json.loads((finished_run / "lineage.json").read_text())["stages"]}
    reached, queue = set(), ["sft"]
    while queue:
        name = queue.pop()
        reached.add(name)
        for source, content in lineage[name]["inputs"].items():
            if source in lineage:
                assert lineage[source]["content"] == content
                queue.append(source)
            else:
                assert source == str(documents)
    assert {"read", "split", "tokenizer", "pretrain", "questions"} <= reached


def test_no_held_out_text_reaches_training(finished_run: Path) -> None:
    from puna.data import corpus

    held_out = {document.id for document in corpus.read(finished_run / "split" / "held_out")}
    train = {document.id for document in corpus.read(finished_run / "split" / "train")}
    conversations = (finished_run / "questions" / "conversations.jsonl").read_text().splitlines()
    assert held_out
    assert not held_out & train
    assert {json.loads(line)["meta"]["document_id"] for line in conversations} <= train


def test_the_same_run_again_does_nothing(finished_run: Path, tiny: RaiseConfig) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*.safetensors")}
    records = raise_model(tiny, finished_run, Silent())
    assert all(record.skipped for record in records.values())
    assert {path: path.stat().st_mtime_ns for path in finished_run.rglob("*.safetensors")} == before


def test_a_changed_setting_runs_what_depends_on_it(finished_run: Path, tiny: RaiseConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    records = raise_model(override(tiny, ["sft.tokens=1024"]), run, Silent())
    assert [name for name in STAGES if not records[name].skipped] == ["sft", "quantize", "evaluate", "report"]


def test_a_damaged_artifact_is_made_again(finished_run: Path, tiny: RaiseConfig, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    weights = run / "pretrain" / "checkpoint" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    records = raise_model(tiny, run, Silent())
    assert not records["pretrain"].skipped
    # Training is deterministic, so what comes after finds the very input it had.
    assert records["sft"].skipped


def test_an_edit_that_leaves_the_text_alone_stops_at_reading(
    tiny: RaiseConfig, documents: Path, tmp_path: Path
) -> None:
    source = tmp_path / "documents"
    shutil.copytree(documents, source)
    config = override(tiny, [f"documents={source}", "pretrain.tokens=512", "sft.tokens=512", "evaluate.tasks=1"])
    raise_model(config, tmp_path / "run", Silent(), until="tokens")
    os.utime(source / "guide.md", (1, 1))
    records = raise_model(config, tmp_path / "run", Silent(), until="tokens")
    assert [name for name, record in records.items() if not record.skipped] == ["read"]


def test_a_run_killed_again_and_again_ends_with_the_same_weights(
    finished_run: Path, tiny: RaiseConfig, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (tmp_path / "config.toml").write_text((finished_run / "run.toml").read_text())
    command = [
        sys.executable,
        "-m",
        "puna",
        "raise",
        "--config",
        str(tmp_path / "config.toml"),
        "--out",
        str(run),
        "-q",
    ]
    command += ["--set", "pretrain.checkpoint_seconds=0", "--set", "sft.checkpoint_seconds=0"]
    kills = 0
    for wait in (3.0, 4.0, 5.0, 6.0):
        process = subprocess.Popen(command)
        try:
            process.wait(wait)
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    subprocess.run(command, check=True)
    assert kills
    for stage in ("pretrain", "sft"):
        ours = Checkpoint.load(run / stage / "checkpoint").weights
        never_killed = Checkpoint.load(finished_run / stage / "checkpoint").weights
        assert all(torch.equal(ours[name], never_killed[name]) for name in never_killed)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if row["stage"] == "pretrain"]
    assert steps == sorted(set(steps))


def test_ctrl_c_is_one_message_and_the_run_goes_on(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "puna", "raise", "--config", str(finished_run / "run.toml"), "--out", str(run)]
    command += ["--set", "pretrain.tokens=4000000", "--set", "pretrain.max_epochs=1e6"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "run the same command again" in errors
    assert (run / "pretrain.partial" / "state" / "values.json").exists()
    assert not (run / "pretrain").exists()


def test_two_runs_cannot_share_a_folder(tiny: RaiseConfig, tmp_path: Path) -> None:
    with folder_lock(tmp_path / "run"), pytest.raises(BusyError, match="Another process"):
        raise_model(tiny, tmp_path / "run", Silent())


def test_an_empty_folder_is_refused_and_leaves_no_artifact(tiny: RaiseConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        raise_model(override(tiny, [f"documents={tmp_path / 'empty'}"]), tmp_path / "run", Silent())
    assert not (tmp_path / "run" / "read").exists()


def test_recipes_are_complete_and_their_sizes_exist() -> None:
    for size in scratch_sizes():
        config = scratch(size, "docs")
        assert config.model is not None
        assert config.pretrain.tokens > 0
        assert [stage.name for stage in stages(config)] == STAGES
    with pytest.raises(ConfigError, match="cria-3"):
        scratch("cria-3")
    base = from_base("some/checkpoint", "docs")
    assert base.model is None
    assert base.pretrain.lora is not None


def test_a_base_model_is_trained_on_with_its_own_tokenizer(finished_run: Path, documents: Path, tmp_path: Path) -> None:
    config = override(
        from_base(str(finished_run / "sft" / "checkpoint"), str(documents)),
        ["pretrain.tokens=512", "pretrain.context_length=64", "pretrain.batch_tokens=256", "split.held_out=0.3",
         "sft.tokens=512", "sft.context_length=256", "sft.batch_tokens=256", "evaluate.tasks=2",
         "evaluate.max_answer_tokens=4", "evaluate.sample_tokens=4", "evaluate.max_bytes=1000",
         "questions.built.passage_chars=200", "device=cpu"],
    )  # fmt: skip
    raise_model(config, tmp_path / "run", Silent())
    base = Checkpoint.load(finished_run / "sft" / "checkpoint")
    raised = Checkpoint.load(tmp_path / "run" / "sft" / "checkpoint")
    assert raised.config.hidden_size == base.config.hidden_size
    assert raised.tokenizer == base.tokenizer
    assert (tmp_path / "run" / "pretrain" / "adapter" / "adapter_model.safetensors").exists()
    assert any(not torch.equal(raised.weights[name].float(), base.weights[name]) for name in base.weights)
