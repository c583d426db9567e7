"""Fine-tuning as a job."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from puna.base.config import override
from puna.core.chat import Message
from puna.model.checkpoint import Checkpoint
from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.jobs.evaluation import datasets_of
from puna.stack.jobs.finetune import KIND, base_folder, conversation, prepare, read_log, settings
from puna.stack.jobs.service import jobs_of
from puna.stack.providers.provider import ModelInfo
from puna.stack.state.holder import is_alive
from puna.stack.testing import ScriptedProvider, make_stack
from puna.testing import tiny_checkpoint

TRAINING = {
    "n_epochs": 2,
    "max_steps_per_epoch": 3,
    "gradient_accumulation_steps": 2,
    "max_length": 64,
    "data_config": {"dataset_id": "d", "batch_size": 1, "shuffle": True, "data_format": "dialog"},
    "optimizer_config": {"optimizer_type": "adamw", "lr": 1e-3, "weight_decay": 0.1, "num_warmup_steps": 2},
}
LORA = {
    "type": "LoRA",
    "rank": 4,
    "alpha": 8,
    "lora_attn_modules": ["q_proj", "output_proj"],
    "apply_lora_to_mlp": True,
    "apply_lora_to_output": False,
}
ROWS = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4


async def started(folder: Path, base: Path) -> Stack:
    stack = make_stack(folder, ScriptedProvider(models=[ModelInfo("tiny", meta={"folder": str(base)})]))
    stack.parts["training_device"] = "cpu"
    await stack.start()
    await datasets_of(stack).register("me", "d", "post-training/messages", {"rows": ROWS}, {})
    return stack


def test_settings_are_those_of_the_trainer() -> None:
    from puna.recipes.stages.finetune import FinetuneConfig

    config = override(FinetuneConfig(), settings(TRAINING | {"dtype": "fp32"}, LORA))
    assert config.lora is not None
    assert config.lora.targets == ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert (config.lora.rank, config.lora.alpha, config.max_epochs, config.dtype) == (4, 8.0, 2.0, "float32")
    assert (config.context_length, config.batch_tokens, config.micro_batch_tokens) == (64, 128, 64)
    assert config.tokens == 2 * 3 * 128
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.schedule.warmup_steps) == (1e-3, 0.1, 2)
    assert override(FinetuneConfig(), settings({"n_epochs": 1}, None)).lora is None


@pytest.mark.parametrize(
    ("training", "algorithm", "status"),
    [
        ({"optimizer_config": {"optimizer_type": "sgd", "lr": 1}}, None, 501),
        ({"data_config": {"train_on_input": True}}, None, 501),
        ({}, {"type": "QAT"}, 501),
        ({}, LORA | {"quantize_base": True}, 501),
        ({}, LORA | {"apply_lora_to_output": True}, 501),
        ({}, LORA | {"lora_attn_modules": ["x_proj"]}, 400),
    ],
)
def test_what_has_no_counterpart_is_refused(training: dict, algorithm: Any, status: int) -> None:
    with pytest.raises(ApiError) as refused:
        settings({"n_epochs": 1, **training}, algorithm)
    assert refused.value.status == status


def test_rows_are_conversations() -> None:
    assert conversation(ROWS[0], 1).messages[1] == Message("assistant", "b")
    assert [m.content for m in conversation({"question": "q", "answer": "a"}, 1).messages] == ["q", "a"]
    for row in ({"x": 1}, {"messages": [{"role": "user", "content": "a"}]}):
        with pytest.raises(ApiError, match="Row 7"):
            conversation(row, 7)


def test_only_a_model_with_a_checkpoint_here_can_be_trained(tmp_path: Path) -> None:
    async def go() -> None:
        stack = await started(tmp_path, tmp_path / "base")
        assert base_folder(stack, "tiny") == tmp_path / "base"
        stack.parts["checkpoints"] = {"other": tmp_path / "o"}
        assert base_folder(stack, "other") == tmp_path / "o"
        elsewhere = make_stack(tmp_path)
        await elsewhere.start()
        with pytest.raises(ApiError, match="no checkpoint on this server"):
            base_folder(elsewhere, "tiny")
        with pytest.raises(ApiError, match="no rows"):
            await datasets_of(stack).register("me", "d", "post-training/messages", {"rows": []}, {})
            await prepare(stack, "me", {"training_config": TRAINING, "model": "tiny"})

    asyncio.run(go())


def test_a_job_trains_a_checkpoint_that_can_be_loaded(tmp_path: Path) -> None:
    async def go() -> dict[str, Any]:
        stack = await started(tmp_path, tiny_checkpoint(tmp_path / "base"))
        wanted = await prepare(stack, "me", {"training_config": TRAINING, "model": "tiny"})
        await jobs_of(stack).submit(KIND, "me", "j", wanted)
        return await jobs_of(stack).wait(KIND, "me", "j")

    job = asyncio.run(go())
    assert job["status"] == "completed", job["error"]
    checkpoint = Checkpoint.load(job["result"]["checkpoint"])
    assert checkpoint.tokenizer is not None
    assert job["result"]["metrics"]["conversations"] == 4


def test_a_training_that_fails_says_its_last_words(tmp_path: Path) -> None:
    async def go() -> dict[str, Any]:
        stack = await started(tmp_path, tmp_path / "nothing")
        wanted = await prepare(stack, "me", {"training_config": TRAINING, "model": "tiny"})
        await jobs_of(stack).submit(KIND, "me", "j", wanted)
        job = await jobs_of(stack).wait(KIND, "me", "j")
        assert "nothing" in read_log(jobs_of(stack).folder_of(KIND, "me", "j"))
        return job

    job = asyncio.run(go())
    assert job["status"] == "failed"
    assert job["error"]["code"] == "training_failed"


def test_a_training_can_be_cancelled(tmp_path: Path) -> None:
    async def go() -> None:
        stack = await started(tmp_path, tiny_checkpoint(tmp_path / "base"))
        long = TRAINING | {"n_epochs": 100_000, "max_steps_per_epoch": 0}
        wanted = await prepare(stack, "me", {"training_config": long, "model": "tiny"})
        await jobs_of(stack).submit(KIND, "me", "j", wanted)
        while not (await jobs_of(stack).get(KIND, "me", "j")).get("child"):
            await asyncio.sleep(0.05)
        job = await jobs_of(stack).cancel(KIND, "me", "j")
        assert job["status"] == "cancelled"
        assert not is_alive(job["child"])

    asyncio.run(go())


KILLED = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_finetune as t

async def go():
    stack = await t.started(Path(sys.argv[1]), Path(sys.argv[1]) / "base")
    training = t.TRAINING | {"n_epochs": 400, "max_steps_per_epoch": 0}
    wanted = await t.prepare(stack, "me", {"training_config": training, "model": "tiny"})
    await t.jobs_of(stack).submit(t.KIND, "me", "j", wanted)
    while not (await t.jobs_of(stack).get(t.KIND, "me", "j")).get("child"):
        await asyncio.sleep(0.05)
    print("under way", flush=True)
    await asyncio.sleep(60)

asyncio.run(go())
"""


def test_a_training_outlives_a_server_that_is_killed_and_its_successor_ends_it(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path / "base")
    command = [sys.executable, "-c", KILLED, tmp_path, Path(__file__).parent]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "under way\n"
    server.kill()
    server.communicate()

    async def go() -> None:
        stack = await started(tmp_path, tmp_path / "base")
        jobs = jobs_of(stack)
        child = (await jobs.get(KIND, "me", "j"))["child"]
        assert is_alive(child)
        assert await jobs.resume() == 1
        job = await jobs.wait(KIND, "me", "j")
        assert job["status"] == "completed", (job["error"], read_log(jobs.folder_of(KIND, "me", "j")))
        assert not is_alive(child)
        assert Checkpoint.load(job["result"]["checkpoint"]).tokenizer is not None

    asyncio.run(go())


def test_there_is_no_log_before_there_is_one(tmp_path: Path) -> None:
    assert read_log(tmp_path) == ""
    (tmp_path / "log.txt").write_bytes(b"x" * 100_000 + b"end")
    assert read_log(tmp_path).endswith("end")
    assert len(read_log(tmp_path)) == 64 << 10
