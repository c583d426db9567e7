"""Tools that run here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from puna.core.chat import ToolSpec
from puna.core.protocols import Tool
from puna.stack.agents.tools import TOOLS, Calculator, CurrentTime, Tools, tools_of
from puna.stack.errors import ApiError
from puna.stack.mcp.settings import ConnectorConfig
from puna.stack.testing import make_stack


class Slow:
    """A tool that takes its time, and fails."""

    spec = ToolSpec("slow", "", {"type": "object", "properties": {"seconds": {"type": "number"}}})

    def __call__(self, arguments: Mapping[str, Any]) -> str:
        time.sleep(arguments.get("seconds", 0))
        raise KeyError("the secret")


if "slow" not in TOOLS:
    TOOLS.add("slow", Slow)


class Stores:
    """Vector stores that know one passage."""

    async def search(self, owner: str, ids: list[str], queries: list[str], limit: int, filters: Any) -> list[dict]:
        assert (owner, ids, queries, limit, filters) == ("me", ["v"], ["hum"], 5, None)
        return [{"file_id": "f", "filename": "a.txt", "score": 0.5, "text": "Llamas hum."}]


def invoked(tools: Tools, name: str, arguments: Mapping[str, Any]) -> Any:
    return asyncio.run(tools.invoke("me", name, arguments))


def test_the_built_in_tools(tmp_path: Path) -> None:
    tools = tools_of(make_stack(tmp_path))
    assert isinstance(Calculator(), Tool)
    assert isinstance(CurrentTime(), Tool)
    assert invoked(tools, "calculator", {"expression": "6 * 7"}).content == "42"
    assert "UTC" in invoked(tools, "current_time", {}).content
    assert "no time zone" in invoked(tools, "current_time", {"timezone": "../etc/passwd"}).error


def test_what_a_tool_refuses_is_a_result_for_the_model(tmp_path: Path) -> None:
    tools = Tools(make_stack(tmp_path), seconds=0.1)
    assert "has no value" in invoked(tools, "calculator", {"expression": "1/0"}).error
    assert "needs the argument 'expression'" in invoked(tools, "calculator", {}).error
    assert "has no argument 'x'" in invoked(tools, "calculator", {"expression": "1", "x": 1}).error
    assert invoked(tools, "slow", {}).error == "The tool 'slow' failed: KeyError."
    with pytest.raises(ApiError) as refused:
        invoked(tools, "nothing", {})
    assert refused.value.status == 404


def test_a_slow_tool_is_not_waited_for(tmp_path: Path) -> None:
    result = invoked(Tools(make_stack(tmp_path), seconds=0.1), "slow", {"seconds": 0.5})
    assert "did not answer within 0.1 s" in result.error


def test_a_search_looks_into_the_owners_stores(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    tools = Tools(stack)
    assert "no vector stores" in invoked(tools, "file_search", {"query": "hum", "vector_store_ids": ["v"]}).error
    stack.parts["vector_stores"] = Stores()
    result = invoked(tools, "knowledge_search", {"query": "hum", "vector_db_ids": ["v"]})
    assert result.content == "[1] a.txt\nLlamas hum."
    assert result.metadata == {"results": [{"file_id": "f", "filename": "a.txt", "score": 0.5}]}
    assert "needs a query" in invoked(tools, "file_search", {"vector_store_ids": ["v"]}).error
    assert "vector_store_ids" in invoked(tools, "file_search", {"query": "hum"}).error


def test_groups_offer_their_tools_with_fixed_arguments(tmp_path: Path) -> None:
    async def go() -> None:
        tools = Tools(make_stack(tmp_path))
        await tools.register("me", "ours", "builtin::rag", {"vector_store_ids": ["v"]})
        offers = await tools.offers(
            "me", ["builtin::basics/calculator", {"name": "ours", "args": {"max_num_results": 2}}]
        )
        assert sorted(offers) == ["calculator", "knowledge_search"]
        assert offers["knowledge_search"].args == {"vector_store_ids": ["v"], "max_num_results": 2}
        assert {"calculator", "current_time", "slow", "file_search"} <= set(await tools.all("me"))
        for group in ("none", "builtin::basics/none"):
            with pytest.raises(ApiError) as refused:
                await tools.offers("me", [group])
            assert refused.value.status == 404
        with pytest.raises(ApiError) as refused:
            await tools.register("me", "x", "websearch", None)
        assert refused.value.status == 400

    asyncio.run(go())


def test_connectors_of_the_settings_are_groups(tmp_path: Path, farm: Any, near: Any) -> None:
    stack = make_stack(tmp_path)
    near({"llamas": ConnectorConfig(farm.url), "away": ConnectorConfig("http://127.0.0.1:9/mcp")})(stack)
    tools = tools_of(stack)

    async def go() -> None:
        offers = await tools.offers("me", ["mcp::llamas/count"])
        assert [(name, offer.provider) for name, offer in offers.items()] == [("count", "model-context-protocol")]
        assert (await tools.invoke("me", "count", {"herd": "ab"}, offers["count"])).content == "2"
        assert "shear" in await tools.all("me")  # the one that is away is left out
        await tools.check("me", ["mcp::away"])
        for wrong in ("mcp::llamas/fly", "mcp::none"):
            with pytest.raises(ApiError) as caught:
                await tools.offers("me", [wrong])
            assert caught.value.status == 404
        with pytest.raises(ApiError) as caught:
            await tools.register("me", "mine", "mcp::llamas", {})
        assert caught.value.status == 400

    asyncio.run(go())


def test_tools_of_one_name_keep_apart(tmp_path: Path, farm: Any, near: Any) -> None:
    stack = make_stack(tmp_path)
    near({"a": ConnectorConfig(farm.url), "b": ConnectorConfig(farm.url)})(stack)
    offers = asyncio.run(tools_of(stack).offers("me", ["mcp::a", "mcp::b"]))
    assert {"count", "b_count"} <= set(offers)
    assert (offers["count"].group, offers["b_count"].group) == ("mcp::a", "mcp::b")
