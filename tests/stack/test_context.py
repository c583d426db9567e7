"""Models by name, work beside the requests, and who is calling."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.stack.context import Caller, new_id
from puna.stack.errors import ApiError
from puna.stack.providers.provider import ModelInfo
from puna.stack.testing import ScriptedProvider, make_stack


class Broken(ScriptedProvider):
    async def models(self):
        raise RuntimeError("not there")


def test_a_model_is_found_by_both_of_its_names(tmp_path: Path) -> None:
    async def work() -> None:
        one = ScriptedProvider("one", models=(ModelInfo("a"), ModelInfo("both")))
        two = ScriptedProvider("two", models=(ModelInfo("both"), ModelInfo("e", "embedding")))
        stack = make_stack(tmp_path, one, two, Broken("broken"))
        await stack.start()
        assert list(stack.models) == ["one/a", "one/both", "two/both", "two/e"]
        assert stack.model("one/a") == stack.model("a")
        assert stack.model("two/both")[0].id == "two"
        assert stack.model("e", "embedding")[1].id == "e"
        for id, type, status in (("both", "llm", 404), ("x", "llm", 404), ("e", "llm", 400), ("a", "embedding", 400)):
            with pytest.raises(ApiError) as caught:
                stack.model(id, type)
            assert (caught.value.status, caught.value.param) == (status, "model")
        await stack.stop()

    asyncio.run(work())


def test_a_part_is_made_once(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    made = stack.part("thing", lambda stack: object())
    assert stack.part("thing", lambda stack: object()) is made


def test_work_in_the_background_ends_with_the_server(tmp_path: Path) -> None:
    async def work() -> None:
        stack, ended = make_stack(tmp_path), []

        async def forever() -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        await stack.start()
        stack.background(forever())
        await asyncio.sleep(0)
        await stack.stop()
        assert ended == ["cancelled"]

    asyncio.run(work())


def test_ids_and_callers() -> None:
    assert new_id("resp").startswith("resp_")
    assert len({new_id("x") for _ in range(100)}) == 100
    assert Caller().scopes == {"*"}
