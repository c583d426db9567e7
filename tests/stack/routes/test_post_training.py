"""Fine-tuning over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from puna.model.checkpoint import Checkpoint
from puna.stack.providers.provider import ModelInfo
from puna.stack.testing import ScriptedProvider
from puna.testing import tiny_checkpoint

ROWS = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4
BODY = {
    "job_uuid": "j",
    "model": "tiny",
    "hyperparam_search_config": {},
    "logger_config": {},
    "training_config": {
        "n_epochs": 1,
        "max_steps_per_epoch": 2,
        "gradient_accumulation_steps": 1,
        "max_length": 64,
        "data_config": {"dataset_id": "d", "batch_size": 1, "shuffle": True, "data_format": "dialog"},
    },
}


def test_a_job_from_its_request_to_a_checkpoint(serve: Any, tmp_path: Path) -> None:
    base = tiny_checkpoint(tmp_path / "base")

    async def scenario(client: Any, stack: Any) -> None:
        dataset = {"dataset_id": "d", "purpose": "post-training/messages", "source": {"type": "rows", "rows": ROWS}}
        await client.post("/v1beta/datasets", json=dataset)
        path = "/v1alpha/post-training"
        assert (await client.post(f"{path}/supervised-fine-tune", json=BODY)).json() == {"job_uuid": "j"}
        assert (await client.post(f"{path}/supervised-fine-tune", json=BODY)).status_code == 409
        query = {"job_uuid": "j"}
        assert (await client.get(f"{path}/job/artifacts", params=query)).json()["checkpoints"] == []
        while True:
            status = (await client.get(f"{path}/job/status", params=query)).json()
            if status["status"] not in ("scheduled", "in_progress"):
                break
            await asyncio.sleep(0.1)
        assert status["status"] == "completed", status["error"]
        (checkpoint,) = (await client.get(f"{path}/job/artifacts", params=query)).json()["checkpoints"]
        assert Checkpoint.load(checkpoint["path"]).tokenizer is not None
        assert checkpoint["post_training_job_id"] == "j"
        assert (await client.get(f"{path}/jobs")).json()["data"] == [{"job_uuid": "j", "status": "completed"}]
        logs = (await client.get("/v1/post-training/job/logs", params=query)).json()["log_lines"]
        assert any("loss" in line for line in logs)
        assert (await client.get(f"{path}/job/status", params={"job_uuid": "x"})).status_code == 404
        assert (await client.get(f"{path}/job/status")).json() == status  # the newest
        assert (await client.get(f"{path}/job/status", headers={"x-test-owner": "you"})).status_code == 404

    def prepare(stack: Any) -> None:
        stack.parts["training_device"] = "cpu"

    serve(scenario, ScriptedProvider(models=[ModelInfo("tiny", meta={"folder": str(base)})]), prepare=prepare)


def test_what_cannot_be_trained_is_refused_at_once(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        path = "/v1alpha/post-training/supervised-fine-tune"
        assert (await client.post(path, json=BODY)).json()["error"]["message"] == "The dataset 'd' was not found."
        dataset = {"dataset_id": "d", "purpose": "post-training/messages", "source": {"type": "rows", "rows": ROWS}}
        await client.post("/v1beta/datasets", json=dataset)
        assert "no checkpoint on this server" in (await client.post(path, json=BODY)).json()["error"]["message"]
        refused = (await client.post(path, json=BODY | {"checkpoint_dir": "/etc"})).json()["error"]
        assert refused["param"] == "checkpoint_dir"
        assert (await client.get("/v1alpha/post-training/jobs")).json()["data"] == []
        assert (await client.post("/v1alpha/post-training/job/cancel")).status_code == 400
        assert (await client.post("/v1alpha/post-training/job/cancel", params={"job_uuid": "x"})).status_code == 404

    serve(scenario)


def test_preference_optimisation_is_said_to_be_missing(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        refused = await client.post("/v1alpha/post-training/preference-optimize", json={"job_uuid": "j"})
        assert refused.status_code == 501
        assert refused.json()["error"]["code"] == "not_implemented"

    serve(scenario)
