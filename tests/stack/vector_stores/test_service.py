"""Indexing in the background: across kills, across tries, and for those who search without a route."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.state.parts import queue_of, uploads_of
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.vector_stores.records import Entry
from puna.stack.vector_stores.service import VectorStores

MODEL = "scripted/letters"
SETTINGS = {"name": "", "description": None, "metadata": {}, "expires_after": None, "embedding_model": MODEL}


async def some(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


class Running:
    """A stack with vector stores that run, without routes."""

    def __init__(self, folder: Path, *providers: ScriptedProvider) -> None:
        self.stack = make_stack(folder, *providers)

    async def __aenter__(self) -> VectorStores:
        await self.stack.start()
        self.service = VectorStores(self.stack, asyncio.get_running_loop())
        self.service.start()
        return self.service

    async def __aexit__(self, *error: object) -> None:
        self.service.close()
        queue_of(self.stack).close()
        await self.stack.stop()

    async def attach(self, store_id: str, text: str, name: str = "a.txt") -> str:
        upload = await uploads_of(self.stack).create("ada", name, "assistants", some(text))
        self.service.records.attach("ada", store_id, Entry(upload.id, {}, (800, 0)))
        self.service.wake()
        return upload.id

    async def ended(self, store_id: str, file_id: str) -> dict[str, Any]:
        until = time.monotonic() + 30
        while (file := self.service.records.file("ada", store_id, file_id)).data["status"] == "in_progress":
            assert time.monotonic() < until
            await asyncio.sleep(0.02)
        return dict(file.data)


def test_several_stores_are_searched_as_one(tmp_path: Path) -> None:
    async def main() -> None:
        running = Running(tmp_path)
        async with running as service:
            ids = [service.records.create("ada", SETTINGS, []).id for _ in range(2)]
            files = [
                await running.attach(id, f"{word} eats grass", f"{word}.txt")
                for id, word in zip(ids, ("llama", "yak"), strict=True)
            ]
            for store_id, file_id in zip(ids, files, strict=True):
                await running.ended(store_id, file_id)
            hits = await service.search("ada", ids, ["which yak eats grass"], 5, None)
            assert [hit["file_id"] for hit in hits] == files[::-1]
            assert hits[0]["text"][hits[0]["start"] : hits[0]["end"]] == "yak eats grass"
            assert (hits[0]["filename"], hits[0]["attributes"]) == ("yak.txt", {})
            assert len(await service.search("ada", ids, ["eats"], 1, None)) == 1
            for owner, wanted, queries, status in (
                ("eve", ids, ["a"], 404),
                ("ada", ["vs_x"], ["a"], 404),
                ("ada", ids, [" "], 400),
            ):
                with pytest.raises(ApiError) as caught:
                    await service.search(owner, wanted, queries, 5, None)
                assert caught.value.status == status

    asyncio.run(main())


class Failing(ScriptedProvider):
    """Fails some times before it embeds."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def embed(self, model: str, texts: Any) -> list[list[float]]:
        if self.times:
            self.times -= 1
            raise RuntimeError("the secret inner state of a provider")
        return await super().embed(model, texts)


def test_a_provider_that_fails_for_a_while_costs_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        running = Running(tmp_path, Failing(2))
        async with running as service:
            store = service.records.create("ada", SETTINGS, [])
            id = await running.attach(store.id, "llamas eat grass")
            assert (await running.ended(store.id, id))["status"] == "completed"

    asyncio.run(main())


def test_a_provider_that_never_works_fails_the_file_without_its_secrets(tmp_path: Path) -> None:
    async def main() -> None:
        provider = Failing(10**6)
        running = Running(tmp_path, provider)
        async with running as service:
            service._indexer._tries = 2
            store = service.records.create("ada", SETTINGS, [])
            id = await running.attach(store.id, "llamas eat grass")
            file = await running.ended(store.id, id)
            assert (file["status"], file["last_error"]["code"]) == ("failed", "server_error")
            assert "secret" not in file["last_error"]["message"]
            provider.times = 0
            assert await service.search("ada", [store.id], ["grass"], 5, None) == []

    asyncio.run(main())


CHILD = """
import asyncio, sys
from pathlib import Path
from puna.stack.state.parts import uploads_of
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.vector_stores.records import Entry
from puna.stack.vector_stores.service import VectorStores

class Hanging(ScriptedProvider):
    async def embed(self, model, texts):
        if any("hang" in text for text in texts):
            print("hangs", flush=True)
            await asyncio.sleep(3600)
        return await super().embed(model, texts)

async def some(text):
    yield text.encode()

async def main():
    stack = make_stack(Path(sys.argv[1]), Hanging())
    await stack.start()
    service = VectorStores(stack, asyncio.get_running_loop())
    service.start()
    settings = {"name": "", "description": None, "metadata": {}, "expires_after": None}
    settings["embedding_model"] = "scripted/letters"
    store = service.records.create("ada", settings, [])
    print(store.id, flush=True)
    for n in range(8):
        word = "hang" if n in (3, 5) else "word"
        upload = await uploads_of(stack).create("ada", f"{n}.txt", "assistants", some(f"{word} number {n}"))
        service.records.attach("ada", store.id, Entry(upload.id, {}, (800, 0)))
        print(upload.id, flush=True)
        service.wake()
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_a_killed_server_goes_on_with_what_was_attached(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline().strip() for _ in range(1 + 8 + 2)]
    child.kill()
    child.wait()
    child.stdout.close()
    assert said.count("hangs") == 2
    store_id, *files = [line for line in said if line != "hangs"]
    assert len(files) == 8

    async def main() -> None:
        running = Running(tmp_path)
        async with running as service:
            before = [service.records.file("ada", store_id, id).data["status"] for id in files]
            assert before.count("in_progress") >= 2
            started = time.monotonic()
            for id in files:
                assert (await running.ended(store_id, id))["status"] == "completed"
            assert time.monotonic() - started < 15  # it does not wait for the dead process's lease to end
            hits = await service.search("ada", [store_id], ["number"], 20, None, mode="words")
            assert sorted(hit["file_id"] for hit in hits) == sorted(files)
            counts = service.records.get("ada", store_id).data["counts"]
            assert (counts["completed"], counts["in_progress"], counts["total"]) == (8, 0, 8)

    asyncio.run(main())
