"""Tools over HTTP."""

from __future__ import annotations

import json
from typing import Any


def test_tools_and_groups_are_listed(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        groups = [group["identifier"] for group in (await client.get("/v1/toolgroups")).json()["data"]]
        assert {"builtin::basics", "builtin::rag"} <= set(groups)
        tools = (await client.get("/v1/tools", params={"toolgroup_id": "builtin::basics"})).json()["data"]
        assert [tool["name"] for tool in tools] == ["calculator", "current_time"]
        tools = (await client.get("/v1/tool-runtime/list-tools", params={"tool_group_id": "builtin::rag"})).json()[
            "data"
        ]
        assert [tool["identifier"] for tool in tools] == ["knowledge_search"]
        assert (await client.get("/v1/tools/calculator")).json()["toolgroup_id"] == "builtin::basics"
        assert (await client.get("/v1/tools/none")).status_code == 404
        assert (await client.get("/v1/tools", params={"toolgroup_id": "none"})).status_code == 404

    serve(scenario)


def test_a_group_of_ones_own(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        body = {"toolgroup_id": "mine", "provider_id": "builtin::rag", "args": {"vector_store_ids": ["v"]}}
        made = (await client.post("/v1/toolgroups", json=body)).json()
        assert (await client.get("/v1/toolgroups/mine")).json() == made
        assert (await client.delete("/v1/toolgroups/mine")).status_code == 204
        assert (await client.delete("/v1/toolgroups/builtin::rag")).status_code == 400

    serve(scenario)


SERVER = {"toolgroup_id": "mcp::llamas", "provider_id": "model-context-protocol"}


def test_a_server_of_tools_is_a_group(serve: Any, farm: Any, near: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        body = {**SERVER, "mcp_endpoint": {"uri": farm.url}, "args": {"herd": "abcd", "other": 1}}
        made = (await client.post("/v1/toolgroups", json=body)).json()
        assert made["mcp_endpoint"] == {"uri": farm.url}
        assert (await client.get("/v1/toolgroups/mcp::llamas")).json() == made
        tools = (await client.get("/v1/tools", params={"toolgroup_id": "mcp::llamas"})).json()["data"]
        count = next(tool for tool in tools if tool["name"] == "count")
        assert (count["toolgroup_id"], count["provider_id"]) == ("mcp::llamas", "model-context-protocol")
        assert count["parameters"][0]["name"] == "herd"
        every = [tool["name"] for tool in (await client.get("/v1/tools")).json()["data"]]
        assert {"calculator", "count"} <= set(every)
        assert (await client.get("/v1/tools/shear")).json()["toolgroup_id"] == "mcp::llamas"
        assert farm.methods().count("tools/list") == 1

        async def invoke(**fields: Any) -> dict[str, Any]:
            return (await client.post("/v1/tool-runtime/invoke", json=fields)).json()

        answer = await invoke(tool_name="shear", kwargs={"name": "Bo"})
        assert (answer["content"], answer["error_message"]) == ("Bo is shorn.", None)
        # What the group fixes is for the tools that have such an argument, and the model does not choose it.
        answer = await invoke(tool_name="count", kwargs={"herd": "a"}, authorization="sesame")
        assert (answer["content"], answer["metadata"]) == ("4", {"structured_content": {"result": 4}})
        assert farm.asked[-2][1]["authorization"] == "Bearer sesame"
        answer = await invoke(tool_name="fail", kwargs={})
        assert (answer["error_code"], answer["error_message"]) == (1, "The llama spat.")
        answer = await invoke(tool_name="calculator", toolgroup_id="mcp::llamas", kwargs={})
        assert answer["error"]["code"] == "not_found"

    serve(scenario, prepare=near())


def test_the_tools_of_a_server_that_is_no_group(serve: Any, farm: Any, near: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        for endpoint in (farm.url, json.dumps({"uri": farm.url})):
            params = {"mcp_endpoint": endpoint, "authorization": "sesame"}
            found = (await client.get("/v1/tool-runtime/list-tools", params=params)).json()["data"]
            assert "count" in [tool["name"] for tool in found]
        assert farm.asked[-1][1]["authorization"] == "Bearer sesame"

    serve(scenario, prepare=near())


def test_servers_that_cannot_be_a_group(serve: Any, near: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        for endpoint, param in (
            (None, "mcp_endpoint"),
            ({"uri": "http://10.0.0.1/mcp"}, "mcp_endpoint.uri"),
            ({"uri": "connector:x"}, "mcp_endpoint.uri"),
            ({"url": "http://127.0.0.1"}, "mcp_endpoint.uri"),
        ):
            refused = await client.post("/v1/toolgroups", json={**SERVER, "mcp_endpoint": endpoint})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
        down = {**SERVER, "mcp_endpoint": {"uri": "http://127.0.0.1:9/mcp"}}
        assert (await client.post("/v1/toolgroups", json=down)).status_code == 200
        refused = await client.get("/v1/tools", params={"toolgroup_id": "mcp::llamas"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (502, "mcp_error")
        # One server that is away takes nothing from the others.
        assert (await client.get("/v1/tools")).status_code == 200

    serve(scenario, prepare=near())


def test_a_tool_is_run_and_its_refusal_is_an_answer(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        body = {"tool_name": "calculator", "kwargs": {"expression": "6*7"}}
        answer = (await client.post("/v1/tool-runtime/invoke", json=body)).json()
        assert (answer["content"], answer["error_message"]) == ("42", None)
        body["kwargs"] = {"expression": "import os"}
        answer = (await client.post("/v1/tool-runtime/invoke", json=body)).json()
        assert answer["error_code"] == 1
        body["tool_name"] = "none"
        assert (await client.post("/v1/tool-runtime/invoke", json=body)).status_code == 404

    serve(scenario)


def test_passages_as_old_clients_ask_for_them(serve: Any) -> None:
    class Stores:
        async def search(self, *args: Any) -> list[dict[str, Any]]:
            assert args == ("", ["v"], ["hum?"], 2, None)
            return [{"file_id": "f", "filename": "a.txt", "score": 1.0, "text": "Llamas hum."}]

    async def scenario(client: Any, stack: Any) -> None:
        body = {"content": "hum?", "vector_db_ids": ["v"], "query_config": {"max_chunks": 2}}
        stack.parts["vector_stores"] = Stores()
        found = (await client.post("/v1/tool-runtime/rag-tool/query", json=body)).json()
        assert found["content"] == [{"type": "text", "text": "[1] a.txt\nLlamas hum."}]
        del stack.parts["vector_stores"]
        assert (await client.post("/v1/tool-runtime/rag-tool/query", json=body)).status_code == 400
        assert (await client.post("/v1/tool-runtime/rag-tool/insert", json={})).status_code == 501

    serve(scenario)
