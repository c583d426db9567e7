"""/v1/batches over the whole application: in goes a file of requests, out come two files of answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.base.errors import InputError
from puna.stack.context import Caller
from puna.stack.testing import RunningServer, ScriptedProvider, make_stack, running

CHAT = "/v1/chat/completions"


Check = Callable[[httpx.AsyncClient, RunningServer], Awaitable[None]]


def as_owner(server: RunningServer, owner: str = "ada", scopes: Sequence[str] = ("*",)) -> httpx.AsyncClient:
    return server.client(Caller(owner, "key", frozenset(scopes)), "/v1", raises=True)


def serve(folder: Path, check: Check, *providers: ScriptedProvider) -> None:
    async def main() -> None:
        async with running(make_stack(folder, *providers)) as server, as_owner(server) as client:
            await check(client, server)

    asyncio.run(main())


def chat_line(name: str, text: str, **more: Any) -> dict[str, Any]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body}


async def upload(client: httpx.AsyncClient, rows: Sequence[Any], purpose: str = "batch") -> str:
    content = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    answer = await client.post("/files", files={"file": ("in.jsonl", content.encode())}, data={"purpose": purpose})
    return answer.json()["id"]


async def create(client: httpx.AsyncClient, rows: Sequence[Any], status: int = 200, **more: Any) -> dict[str, Any]:
    body = {"input_file_id": await upload(client, rows), "endpoint": CHAT, "completion_window": "24h", **more}
    answer = await client.post("/batches", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def ended(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    until = time.monotonic() + 30
    while True:
        batch = (await client.get(f"/batches/{id}")).json()
        if batch["status"] in ("completed", "failed", "expired", "cancelled"):
            return batch
        assert time.monotonic() < until, batch
        await asyncio.sleep(0.02)


async def rows_of(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    content = (await client.get(f"/files/{id}/content")).text
    rows = [json.loads(line) for line in content.splitlines()]
    assert len({row["custom_id"] for row in rows}) == len(rows)
    return {row["custom_id"]: row for row in rows}


def test_every_request_is_answered_into_a_file(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        lines = [chat_line(f"r{n}", f"say {n}") for n in range(10)]
        batch = await create(client, [*lines, "", "  "], metadata={"a": "b"})
        assert (batch["object"], batch["status"], batch["metadata"]) == ("batch", "validating", {"a": "b"})
        batch = await ended(client, batch["id"])
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
        assert batch["error_file_id"] is None
        assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
        rows = await rows_of(client, batch["output_file_id"])
        assert rows.keys() == {f"r{n}" for n in range(10)}
        for n in range(10):
            response = rows[f"r{n}"]["response"]
            assert response["status_code"] == 200
            assert response["request_id"].startswith("req_")
            assert response["body"]["choices"][0]["message"]["content"] == f"say {n}"
            assert rows[f"r{n}"]["error"] is None
        file = (await client.get(f"/files/{batch['output_file_id']}")).json()
        assert (file["purpose"], file["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")
        assert server.stack.store.list("batch_line", "ada").records == []
        assert server.stack.store.list("work", parent="batch").records == []

    serve(tmp_path, check)


def test_requests_that_fail_are_in_the_error_file(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        lines = [chat_line("good", "hi"), chat_line("bad", "hi", temperature=-7)]
        batch = await ended(client, (await create(client, lines))["id"])
        assert (batch["status"], batch["request_counts"]) == ("completed", {"total": 2, "completed": 1, "failed": 1})
        rows = await rows_of(client, batch["error_file_id"])
        assert rows.keys() == {"bad"}
        assert rows["bad"]["response"]["status_code"] == 400
        assert rows["bad"]["error"]["message"] == rows["bad"]["response"]["body"]["error"]["message"]
        assert (await rows_of(client, batch["output_file_id"])).keys() == {"good"}

    serve(tmp_path, check)


def test_a_provider_that_raises_fails_its_line_alone(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        batch = await ended(client, (await create(client, [chat_line(f"r{n}", "hi") for n in range(5)]))["id"])
        assert batch["request_counts"] == {"total": 5, "completed": 4, "failed": 1}

    serve(tmp_path, check, ScriptedProvider(answers=["a", InputError("too odd")]))


FAULTS: dict[str, Sequence[Any]] = {
    "invalid_json_line": [chat_line("a", "x"), "{no json"],
    "duplicate_custom_id": [chat_line("a", "x"), chat_line("a", "y")],
    "invalid_url": [{**chat_line("a", "x"), "url": "/v1/embeddings"}],
    "empty_file": [""],
    "model_not_found": [{**chat_line("a", "x"), "body": {"model": "none", "messages": []}}],
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_file_with_a_fault_fails_before_any_request(tmp_path: Path, code: str) -> None:
    provider = ScriptedProvider()

    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        batch = await ended(client, (await create(client, FAULTS[code]))["id"])
        assert (batch["status"], batch["output_file_id"]) == ("failed", None)
        assert batch["errors"]["object"] == "list"
        assert batch["errors"]["data"][0]["code"] == code
        assert provider.asked == []

    serve(tmp_path, check, provider)


def test_a_wrong_batch_is_refused_with_its_field(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        line = [chat_line("a", "x")]
        for field, value in (("endpoint", "/v1/files"), ("completion_window", "1h"), ("metadata", {"a": 1})):
            error = (await create(client, line, 400, **{field: value}))["error"]
            assert error["param"].startswith(field)
        file = await upload(client, line, "assistants")
        assert (await create(client, line, 400, input_file_id=file))["error"]["param"] == "input_file_id"

    serve(tmp_path, check)


def test_batches_are_their_owners_alone(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        batch = await create(client, [chat_line("a", "x")])
        await ended(client, batch["id"])
        async with as_owner(server, "eve") as eve:
            assert (await eve.get(f"/batches/{batch['id']}")).status_code == 404
            assert (await eve.post(f"/batches/{batch['id']}/cancel")).status_code == 404
            assert (await eve.get("/batches")).json()["data"] == []
            body = {"input_file_id": batch["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
            failed = await ended(eve, (await eve.post("/batches", json=body)).json()["id"])
            assert (failed["status"], failed["errors"]["data"][0]["param"]) == ("failed", "file_id")

    serve(tmp_path, check)


def test_a_key_that_may_not_chat_may_not_have_a_batch_chat(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        file = await upload(client, [chat_line("a", "x")])
        async with as_owner(server, "ada", ["batches"]) as narrow:
            body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
            answer = await narrow.post("/batches", json=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")

    serve(tmp_path, check)


def test_batches_are_listed_by_page(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        ids = [(await create(client, [chat_line("a", "x")]))["id"] for _ in range(3)]
        page = (await client.get("/batches", params={"limit": 2})).json()
        assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (ids[:0:-1], True)
        page = (await client.get("/batches", params={"limit": 2, "after": page["last_id"]})).json()
        assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (ids[:1], False)

    serve(tmp_path, check)


def test_a_cancelled_batch_keeps_what_was_answered(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        id = (await create(client, [chat_line(f"r{n}", "hi") for n in range(200)]))["id"]
        until = time.monotonic() + 20
        while (await client.get(f"/batches/{id}")).json()["request_counts"]["completed"] < 5:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        assert (await client.post(f"/batches/{id}/cancel")).json()["status"] == "cancelling"
        batch = await ended(client, id)
        assert batch["status"] == "cancelled"
        assert 5 <= batch["request_counts"]["completed"] < 200
        assert len(await rows_of(client, batch["output_file_id"])) == batch["request_counts"]["completed"]
        assert (await client.post(f"/batches/{id}/cancel")).json()["status"] == "cancelled"

    serve(tmp_path, check, ScriptedProvider(pause=0.02))


def test_a_batch_that_has_ended_cannot_be_cancelled(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        batch = await ended(client, (await create(client, [chat_line("a", "x")]))["id"])
        answer = await client.post(f"/batches/{batch['id']}/cancel")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "batch_ended")

    serve(tmp_path, check)


def test_a_batch_whose_time_is_over_says_which_requests_were_not_made(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        id = (await create(client, [chat_line(f"r{n}", "hi") for n in range(100)]))["id"]
        store = server.stack.store
        while (await client.get(f"/batches/{id}")).json()["request_counts"]["completed"] < 2:
            await asyncio.sleep(0.02)
        with store.transaction():
            record = store.get("batch", id, "ada")
            assert record is not None
            store.put("batch", id, {**record.data, "expires_at": int(time.time()) - 1}, owner="ada")
        batch = await ended(client, id)
        assert batch["status"] == "expired"
        done, rest = await rows_of(client, batch["output_file_id"]), await rows_of(client, batch["error_file_id"])
        assert not done.keys() & rest.keys()
        assert len(done) + len(rest) == 100
        assert all(row["error"]["code"] == "batch_expired" for row in rest.values())

    serve(tmp_path, check, ScriptedProvider(pause=0.05))


def test_embeddings_and_the_expiry_of_outputs(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        body = {"model": "letters", "input": "abc"}
        lines = [{"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": body}]
        expiry = {"anchor": "created_at", "seconds": 3600}
        batch = await create(client, lines, endpoint="/v1/embeddings", output_expires_after=expiry)
        batch = await ended(client, batch["id"])
        rows = await rows_of(client, batch["output_file_id"])
        assert len(rows["e"]["response"]["body"]["data"][0]["embedding"]) == 26
        file = (await client.get(f"/files/{batch['output_file_id']}")).json()
        assert file["expires_at"] == file["created_at"] + 3600

    serve(tmp_path, check)


def test_a_file_that_is_not_there_fails_the_batch(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        batch = await create(client, [chat_line("a", "x")], input_file_id="file-none")
        batch = await ended(client, batch["id"])
        assert batch["status"] == "failed"
        assert batch["errors"]["data"][0]["code"] == "invalid_request"
        assert "Cannot find file 'file-none'" in batch["errors"]["data"][0]["message"]

    serve(tmp_path, check)


def test_asking_again_with_the_same_key_makes_no_second_batch(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        file = await upload(client, [chat_line("a", "x")])
        body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h", "idempotency_key": "once"}
        first, second = [(await client.post("/batches", json=body)).json() for _ in range(2)]
        assert (second["id"], second["created_at"]) == (first["id"], first["created_at"])
        answer = await client.post("/batches", json={**body, "metadata": {"a": "b"}})
        assert (answer.status_code, answer.json()["error"]["param"]) == (409, "idempotency_key")
        async with as_owner(server, "eve") as eve:
            assert (await eve.post("/batches", json=body)).json()["id"] != first["id"]
        assert len((await client.get("/batches")).json()["data"]) == 1

    serve(tmp_path, check)
