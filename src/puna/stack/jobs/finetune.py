"""Fine-tuning as a job: `puna train sft` in a process of its own, over a dataset of conversations.

A child process because training takes all memory and time that it gets, and must not take the server with it. It keeps
its state in the job's folder, so the same command goes on where it was cut off; a child that outlived its server is
waited for first. What the clients' settings have no counterpart for is refused, never silently left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from puna.base.files import read_json, write_jsonl
from puna.core.chat import Conversation
from puna.stack.agents.llama import message_from, objects
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid, not_implemented
from puna.stack.jobs.evaluation import datasets_of
from puna.stack.jobs.jobs import Running
from puna.stack.jobs.processes import outlast, run_child
from puna.stack.state.store import run

KIND = "post_training_job"
_LORA_NAMES = {"q_proj", "k_proj", "v_proj", "o_proj", "output_proj"}
_MLP = ("gate_proj", "up_proj", "down_proj")
_LOG_BYTES = 64 << 10


def base_folder(stack: Stack, model: str) -> Path:
    """The checkpoint of a model that this server has on its disk.

    Raises:
        ApiError: 404 for an unknown model, 400 for one that lives elsewhere.
    """
    known: Mapping[str, Path] = stack.parts.get("checkpoints", {})
    if model in known:
        return Path(known[model])
    provider, info = stack.model(model)
    inner = getattr(provider, "provider", provider)  # one that is metered stands around it
    folder = info.meta.get("folder") or getattr(inner, "folder", None)
    if folder is None:
        raise invalid(
            f"The model {model!r} has no checkpoint on this server; only a local one can be trained.", "model"
        )
    return Path(folder)


def settings(config: Mapping[str, Any], algorithm: Mapping[str, Any] | None) -> list[str]:
    """The request's training configuration as settings of `puna train sft`."""
    given = [*_lora(algorithm), f"max_epochs={config['n_epochs']}"]
    data = config.get("data_config") or {}
    optimizer = config.get("optimizer_config") or {}
    if data.get("train_on_input"):
        raise not_implemented("Training on the input is not offered: the loss is over the assistant's tokens.")
    if kind := optimizer.get("optimizer_type"):
        if kind not in ("adam", "adamw"):
            raise not_implemented(f"There is no optimizer {kind!r} here; use adamw.")
        given += ["optimizer.kind=adamw", f"optimizer.lr={optimizer['lr']}"]
        decay = 0.0 if kind == "adam" else optimizer.get("weight_decay", 0.0)
        given += [f"optimizer.weight_decay={decay}", f"schedule.warmup_steps={optimizer.get('num_warmup_steps', 0)}"]
    length = int(config.get("max_length") or 512)
    rows = max(1, int(data.get("batch_size") or 1)) * max(1, int(config.get("gradient_accumulation_steps") or 1))
    given += [f"context_length={length}", f"batch_tokens={length * rows}"]
    given += [f"micro_batch_tokens={length * max(1, int(data.get('batch_size') or 1))}"]
    if steps := int(config.get("max_steps_per_epoch") or 0):
        given.append(f"tokens={max(1, steps * int(config['n_epochs'])) * length * rows}")
    if dtype := config.get("dtype"):
        names = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
        given.append(f"dtype={names.get(dtype, dtype)}")
    if (config.get("efficiency_config") or {}).get("enable_activation_checkpointing"):
        given.append("recompute=true")
    return given


def _lora(algorithm: Mapping[str, Any] | None) -> list[str]:
    if not algorithm:
        return ["lora=none"]
    if algorithm.get("type") != "LoRA":
        raise not_implemented(
            f"The algorithm {algorithm.get('type')!r} is not offered here; LoRA is, and full training."
        )
    if algorithm.get("quantize_base"):
        raise not_implemented("Adapters on a quantised base are not offered here yet: set quantize_base to false.")
    if algorithm.get("apply_lora_to_output"):
        raise not_implemented("Adapters on the output layer are not offered here: set apply_lora_to_output to false.")
    names = [name.rpartition(".")[2] for name in algorithm.get("lora_attn_modules") or ("q_proj", "v_proj")]
    if unknown := sorted(set(names) - _LORA_NAMES):
        raise invalid(f"There are no attention modules {', '.join(unknown)}.", "algorithm_config.lora_attn_modules")
    targets = ["o_proj" if name == "output_proj" else name for name in names]
    targets += _MLP if algorithm.get("apply_lora_to_mlp") else ()
    return [
        f"lora.rank={int(algorithm['rank'])}",
        f"lora.alpha={float(algorithm['alpha'])}",
        f"lora.use_dora={str(bool(algorithm.get('use_dora'))).lower()}",
        f"lora.targets={json.dumps(targets)}",
    ]


def conversation(row: Mapping[str, Any], number: int) -> Conversation:
    """A row of a dataset as a conversation to learn from."""
    if isinstance(row.get("messages"), list):
        messages = tuple(message_from(message, "dataset_id") for message in objects(row["messages"], "dataset_id"))
    elif isinstance(row.get("dialog"), list):
        messages = tuple(message_from(message, "dataset_id") for message in objects(row["dialog"], "dataset_id"))
    else:
        question = row.get("input_query", row.get("question", row.get("prompt")))
        answer = row.get("expected_answer", row.get("answer", row.get("completion")))
        if not isinstance(question, str) or not isinstance(answer, str):
            raise invalid(
                f"Row {number} of the dataset has neither messages nor a question and its answer.", "dataset_id"
            )
        messages = (
            message_from({"role": "user", "content": question}),
            message_from({"role": "assistant", "content": answer}),
        )
    if not any(message.role == "assistant" for message in messages):
        raise invalid(f"Row {number} of the dataset has no assistant's message to learn.", "dataset_id")
    return Conversation(messages)


async def prepare(stack: Stack, owner: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Looks at a request before a job is made of it: what can be refused is refused at once."""
    config = body["training_config"]
    dataset = (config.get("data_config") or {}).get("dataset_id")
    if not dataset:
        raise invalid("The training needs a dataset.", "training_config.data_config.dataset_id")
    rows = await datasets_of(stack).rows(owner, dataset)
    if not rows:
        raise invalid(f"The dataset {dataset!r} has no rows.", "training_config.data_config.dataset_id")
    for number, row in enumerate(rows, 1):
        conversation(row, number)
    if not body.get("model"):
        raise invalid("Name the model to train.", "model")
    return {
        "base": str(base_folder(stack, body["model"])),
        "model": body["model"],
        "dataset_id": dataset,
        "settings": settings(config, body.get("algorithm_config")),
        "device": stack.parts.get("training_device", "auto"),
        "epochs": int(config["n_epochs"]),
    }


async def work(job: Running) -> dict[str, Any]:
    """The job: writes the conversations once, and runs the trainer until it is done."""
    request, data = job.request, job.folder / "conversations.jsonl"
    if child := job.data.get("child"):
        await outlast(child)
    if not data.exists():
        rows = await datasets_of(job.stack).rows(job.owner, request["dataset_id"])
        lines = [conversation(row, number).to_json() for number, row in enumerate(rows, 1)]
        await run(write_jsonl, data, lines)
    out = job.folder / "run"
    command = [sys.executable, "-m", "puna", "train", "sft", request["base"], str(data), str(out), "--quiet"]
    command += ["--device", request["device"]]
    for setting in request["settings"]:
        command += ["--set", setting]

    async def started(child: str) -> None:
        await job.save(child=child)

    code = await run_child(command, job.folder / "log.txt", started)
    if code:
        raise TrainingFailedError(code, read_log(job.folder))
    checkpoint = out / "sft" / "checkpoint"
    return {"checkpoint": str(checkpoint), "run": str(out), "metrics": await run(_metrics, out)}


class TrainingFailedError(ApiError):
    """A trainer that ended with an error; its last words are the message."""

    def __init__(self, code: int, log: str) -> None:
        last = next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "it said nothing")
        super().__init__(500, f"The training ended with {code}: {last}", code="training_failed")


def read_log(folder: Path) -> str:
    """The last part of what the trainer wrote."""
    try:
        with (folder / "log.txt").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _metrics(run_folder: Path) -> dict[str, Any]:
    """Numbers of the stage, from the run's lineage."""
    stages = read_json(run_folder / "lineage.json")["stages"]
    return next((stage["metrics"] for stage in stages if stage["name"] == "sft"), {})
