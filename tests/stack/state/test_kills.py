"""Two whole servers over one database are killed at work: what they acknowledged is there, and nothing half there."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from puna.stack.app import make_app
from puna.stack.context import Stack
from puna.stack.state.files import FileStore
from puna.stack.state.store import Store
from puna.stack.testing import ScriptedProvider

SERVER = """
import asyncio, json, sys
from pathlib import Path
import httpx
from puna.stack.app import make_app
from puna.stack.context import Stack
from puna.stack.state.files import FileStore
from puna.stack.state.postgres import PostgresStore
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

where, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
store = PostgresStore(where) if "://" in where else SqliteStore(where)

async def main():
    stack = Stack(store, FileStore(folder / "files"), {"scripted": ScriptedProvider(pause=0.01)})
    app = make_app(stack)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t/v1")

    async def upload(content, purpose):
        answer = await client.post("/files", files={"file": ("a.txt", content)}, data={"purpose": purpose})
        print(json.dumps({"file": answer.json()["id"], "content": content.decode()}), flush=True)
        return answer.json()["id"]

    async with app.router.lifespan_context(app), client:
        for n in range(10**6):
            file = await upload(f"the text {n} of {name}".encode() * 50, "assistants")
            made = (await client.post("/vector_stores", json={"file_ids": [file]})).json()
            print(json.dumps({"store": made["id"], "of": file}), flush=True)
            gone = await upload(b"to be deleted", "assistants")
            await client.post(f"/vector_stores/{made['id']}/files", json={"file_id": gone})
            await client.delete(f"/files/{gone}")
            print(json.dumps({"gone": gone}), flush=True)
            body = {"model": "tiny", "messages": [{"role": "user", "content": "say it"}]}
            line = {"method": "POST", "url": "/v1/chat/completions", "body": body}
            lines = [json.dumps({"custom_id": f"{i}", **line}) for i in range(6)]
            file = await upload("\\n".join(lines).encode(), "batch")
            body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            print(json.dumps({"batch": (await client.post("/batches", json=body)).json()["id"]}), flush=True)

asyncio.run(main())
"""


def killed(where: str, folder: Path) -> list[dict[str, Any]]:
    """Lets two servers work, kills them at some moment, and gives what they acknowledged."""
    servers = []
    for name in ("one", "two"):
        with (folder / f"{name}.log").open("w") as log:
            command = [sys.executable, "-c", SERVER, where, folder, name]
            servers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True))
    said = []
    for server in servers:
        assert server.stdout is not None
        for _ in range(random.randint(8, 25)):
            line = server.stdout.readline()
            assert line, [path.read_text() for path in folder.glob("*.log")]
            said.append(line)
    for server in servers:
        server.kill()
    for server in servers:
        assert server.stdout is not None
        said += [line for line in server.stdout if line.endswith("}\n")]
        server.wait()
        server.stdout.close()
    return [json.loads(line) for line in said]


async def settled(client: httpx.AsyncClient, store: Store) -> None:
    """Waits until all work that was left is done."""
    until = time.monotonic() + 60
    while left := store.list("work").records:
        late = [record for record in left if record.data["due"] > time.time()]
        if len(late) == len(left):  # an upload that was cut off is swept when no upload can last so long
            for record in late:
                assert record.parent == "file_sweep"
                store.put("work", record.id, {**record.data, "due": 0})
        assert time.monotonic() < until, [record.data for record in left]
        await asyncio.sleep(0.1)


async def check(client: httpx.AsyncClient, said: list[dict[str, Any]]) -> None:
    for word in said:
        if "file" in word:
            answer = await client.get(f"/files/{word['file']}/content")
            gone = any(other.get("gone") == word["file"] for other in said)
            assert answer.status_code in (
                (404,) if gone else (200, 404) if word["content"] == "to be deleted" else (200,)
            )
            assert answer.status_code == 404 or answer.text == word["content"]
        elif "store" in word:
            file = (await client.get(f"/vector_stores/{word['store']}/files/{word['of']}")).json()
            assert file["status"] == "completed"
            shown = (await client.get(f"/vector_stores/{word['store']}")).json()
            listed = (await client.get(f"/vector_stores/{word['store']}/files")).json()["data"]
            assert shown["file_counts"]["completed"] == shown["file_counts"]["total"] == len(listed)
            body = {"query": "the text", "max_num_results": 50}
            hits = (await client.post(f"/vector_stores/{word['store']}/search", json=body)).json()["data"]
            assert {hit["file_id"] for hit in hits} >= {word["of"]}
        elif "batch" in word:
            batch = (await client.get(f"/batches/{word['batch']}")).json()
            assert batch["status"] == "completed"
            assert batch["request_counts"] == {"total": 6, "completed": 6, "failed": 0}
            rows = (await client.get(f"/files/{batch['output_file_id']}/content")).text.splitlines()
            assert sorted(json.loads(row)["custom_id"] for row in rows) == list("012345")


def test_what_killed_servers_acknowledged_is_there_and_nothing_is_half_there(
    where: str, opened: Callable[[], Store], tmp_path: Path
) -> None:
    said = [word for _ in range(2) for word in killed(where, tmp_path)]
    assert sum("batch" in word for word in said) >= 2
    store = opened()

    async def main() -> None:
        app = make_app(Stack(store, FileStore(tmp_path / "files"), {"scripted": ScriptedProvider()}))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t/v1")
        async with app.router.lifespan_context(app), client:
            await settled(client, store)
            await check(client, said)
            kept = {record.id for record in store.list("file", limit=10_000).records}
            assert {path.name for path in (tmp_path / "files").iterdir()} == kept
            indexes = {path.name.partition(".")[0] for path in (tmp_path / "vector_stores").iterdir()}
            assert indexes <= {record.id for record in store.list("vector_store", limit=10_000).records}

    asyncio.run(main())
