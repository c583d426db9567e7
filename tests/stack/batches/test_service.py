"""A batch goes on after a kill, and no answered request is made again; what the routes show is in `routes`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

SERVER = """
import asyncio, json, sys
from pathlib import Path
import httpx
from puna.stack.app import make_app
from puna.stack.testing import ScriptedProvider, make_stack

folder, count = Path(sys.argv[1]), int(sys.argv[2])

class Logging(ScriptedProvider):
    async def stream(self, ask):
        text = ask.messages[-1].content
        with (folder / "asked").open("a") as log:
            log.write(text + "\\n")
        async for event in super().stream(ask):
            yield event

async def main():
    stack = make_stack(folder, Logging(pause=0.03))
    app = make_app(stack)
    transport = httpx.ASGITransport(app)
    client = httpx.AsyncClient(transport=transport, base_url="http://t/v1")
    async with app.router.lifespan_context(app), client:
        if count:
            lines = [
                {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions",
                 "body": {"model": "tiny", "messages": [{"role": "user", "content": f"say {n}"}]}}
                for n in range(count)
            ]
            content = "\\n".join(map(json.dumps, lines)).encode()
            file = (await client.post("/files", files={"file": ("a", content)}, data={"purpose": "batch"})).json()
            body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            batch = (await client.post("/batches", json=body)).json()
        else:
            batch = (await client.get("/batches")).json()["data"][0]
        while True:
            batch = (await client.get(f"/batches/{batch['id']}")).json()
            rows = ""
            if batch["status"] == "completed":
                rows = (await client.get(f"/files/{batch['output_file_id']}/content")).text
            print(json.dumps({**batch, "rows": rows}), flush=True)
            if rows:
                return
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


def start(folder: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, folder, str(count)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def watch(server: subprocess.Popen[str], enough: int) -> dict[str, Any]:
    """Reads what a server says of its batch until enough requests are answered, or it has ended."""
    assert server.stdout is not None
    shown: dict[str, Any] = {}
    for line in server.stdout:
        shown = json.loads(line)
        if shown["request_counts"]["completed"] >= enough or shown["rows"]:
            break
    else:
        assert server.stderr is not None
        pytest.fail(server.stderr.read())
    return shown


def end(server: subprocess.Popen[str], kill: bool) -> None:
    if kill:
        server.kill()
    server.communicate(timeout=60)


def test_a_killed_batch_goes_on_and_asks_nothing_answered_again(tmp_path: Path) -> None:
    count = 60
    server = start(tmp_path, count)
    watch(server, 10)
    end(server, kill=True)
    server = start(tmp_path, 0)
    watch(server, 30)
    end(server, kill=True)
    server = start(tmp_path, 0)
    shown = watch(server, count + 1)
    end(server, kill=False)
    assert shown["request_counts"] == {"total": count, "completed": count, "failed": 0}
    rows = [json.loads(row) for row in shown["rows"].splitlines()]
    assert sorted(row["custom_id"] for row in rows) == sorted(f"r{n}" for n in range(count))
    asked = Counter((tmp_path / "asked").read_text().splitlines())
    assert len(asked) == count
    # Only what was under way at one of the two kills was asked again: four requests at a time.
    assert sum(asked.values()) <= count + 2 * 4
    assert max(asked.values()) <= 3
