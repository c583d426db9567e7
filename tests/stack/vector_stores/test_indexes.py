"""Indexes are opened when they are used, embedded by the server's models, and closed or deleted without a trace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from puna.base.errors import ResourceError
from puna.core.document import Document
from puna.stack.context import Stack
from puna.stack.errors import ApiError
from puna.stack.state.store import run
from puna.stack.testing import ScriptedProvider, make_stack
from puna.stack.vector_stores import indexes
from puna.stack.vector_stores.indexes import DEFAULT_CUT, Indexes

MODEL = "scripted/letters"


def document(id: str, text: str) -> Document:
    return Document(text, id, f"{id}.txt")


def using(
    folder: Path, check: Callable[[Indexes, Stack], Awaitable[None]], provider: ScriptedProvider | None = None
) -> None:
    async def main() -> None:
        stack = make_stack(folder, *([provider] if provider else []))
        await stack.start()
        found = Indexes(folder / "vector_stores", stack, asyncio.get_running_loop())
        try:
            await check(found, stack)
        finally:
            found.close()
            await stack.stop()

    asyncio.run(main())


def test_what_was_put_is_found_by_words_and_by_meaning(tmp_path: Path) -> None:
    async def check(found: Indexes, stack: Stack) -> None:
        assert found.default_model() == MODEL
        await run(found.put, "vs_1", MODEL, document("a", "zzz zebra"), {"n": 1}, DEFAULT_CUT)
        await run(found.put, "vs_1", MODEL, document("b", "llamas eat grass"), {"n": 2}, DEFAULT_CUT)
        (hit, *_) = await run(found.search, "vs_1", MODEL, ["grass"], 5)
        assert (hit.document_id, hit.attributes) == ("b", {"n": 2})
        near = await run(lambda: found.search("vs_1", MODEL, ["zzzzz"], 5, mode="vector"))
        assert near[0].document_id == "a"
        text = await run(found.document, "vs_1", "a")
        assert text is not None
        assert text.text == "zzz zebra"

    using(tmp_path, check)


def test_while_the_model_is_away_words_are_searched_and_nothing_is_indexed(tmp_path: Path) -> None:
    async def check(found: Indexes, stack: Stack) -> None:
        await run(found.put, "vs_1", MODEL, document("a", "llamas eat grass"), {}, DEFAULT_CUT)
        stack.providers.clear()
        await stack.refresh_models()
        assert found.default_model() == ""
        (hit,) = await run(found.search, "vs_1", MODEL, ["grass"], 5)
        assert hit.document_id == "a"
        with pytest.raises(ApiError):
            await run(found.put, "vs_1", MODEL, document("b", "more"), {}, DEFAULT_CUT)

    using(tmp_path, check)


def test_a_store_without_files_has_no_index(tmp_path: Path) -> None:
    async def check(found: Indexes, stack: Stack) -> None:
        assert await run(found.search, "vs_1", MODEL, ["grass"], 5) == []
        assert await run(found.document, "vs_1", "a") is None
        await run(found.delete, "vs_1", "a")
        await run(found.set_attributes, "vs_1", "a", {})
        assert not found.folder.exists()

    using(tmp_path, check)


def test_dropping_deletes_the_files(tmp_path: Path) -> None:
    async def check(found: Indexes, stack: Stack) -> None:
        for id in ("vs_1", "vs_2"):
            await run(found.put, id, "", document("a", "llamas"), {}, DEFAULT_CUT)
        await run(found.drop, "vs_1")
        await run(found.drop, "vs_1")
        assert {path.name.partition(".")[0] for path in found.folder.iterdir()} == {"vs_2"}
        assert await run(found.search, "vs_1", "", ["llamas"], 5) == []

    using(tmp_path, check)


def test_of_many_indexes_those_used_last_stay_open(tmp_path: Path) -> None:
    async def check(found: Indexes, stack: Stack) -> None:
        for n in range(indexes._OPEN + 5):
            await run(found.put, f"vs_{n}", "", document("a", f"llama number {n}"), {}, DEFAULT_CUT)
        assert len(found._opened) == indexes._OPEN
        (hit,) = await run(found.search, "vs_0", "", ["llama"], 5)
        assert hit.text == "llama number 0"
        assert len(found._opened) == indexes._OPEN

    using(tmp_path, check)


class Hanging(ScriptedProvider):
    """Never has its vectors."""

    async def embed(self, model: str, texts: object) -> list[list[float]]:
        await asyncio.sleep(3600)
        return []


def test_a_thread_that_waits_for_vectors_ends_with_the_server(tmp_path: Path) -> None:
    async def check(found: Indexes, stack: Stack) -> None:
        failed: list[Exception] = []

        def put() -> None:
            try:
                found.put("vs_1", MODEL, document("a", "llamas"), {}, DEFAULT_CUT)
            except ResourceError as error:
                failed.append(error)

        thread = threading.Thread(target=put)
        thread.start()
        await asyncio.sleep(0.1)
        assert thread.is_alive()
        found.close()
        await run(thread.join, 10)
        assert failed

    using(tmp_path, check, Hanging())
