"""Tools over HTTP."""

from __future__ import annotations

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
        mcp = {"toolgroup_id": "mcp::x", "provider_id": "model-context-protocol", "mcp_endpoint": {"uri": "http://x"}}
        assert (await client.post("/v1/toolgroups", json=mcp)).status_code == 501

    serve(scenario)


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
