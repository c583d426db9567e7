"""Connectors over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from puna.stack.mcp.service import Target
from puna.stack.mcp.settings import ConnectorConfig
from puna.stack.testing import ScriptedProvider

PREFIXES = ["/v1alpha/admin/connectors", "/v1beta/connectors"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_connectors_of_the_settings(serve: Any, farm: Any, near: Any, prefix: str) -> None:
    connectors = {"llamas": ConnectorConfig(farm.url, headers={"x-key": "sesame"}, description="A farm.")}

    async def scenario(client: Any, stack: Any) -> None:
        listed = await client.get(prefix)
        (row,) = listed.json()["data"]
        assert (row["connector_type"], row["connector_id"], row["server_description"]) == ("mcp", "llamas", "A farm.")
        assert (row["server_name"], farm.asked) == (None, [])
        row = (await client.get(f"{prefix}/llamas")).json()
        assert (row["server_name"], row["server_version"]) == ("Llama farm", "1.2")
        tools = await client.get(f"{prefix}/llamas/tools", params={"authorization": "token"})
        count = next(tool for tool in tools.json()["data"] if tool["name"] == "count")
        assert count["input_schema"]["required"] == ["herd"]
        assert count["metadata"]["readOnlyHint"] is True
        assert farm.asked[-1][1]["authorization"] == "Bearer token"
        assert (await client.get(f"{prefix}/llamas/tools/count")).json() == count
        assert (await client.get(f"{prefix}/llamas/tools/fly")).status_code == 404
        assert (await client.get(f"{prefix}/none/tools")).status_code == 404
        assert (await client.delete(f"{prefix}/llamas")).status_code == 400
        assert "sesame" not in listed.text + tools.text

    serve(scenario, prepare=near(connectors))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_connectors_of_ones_own(serve: Any, farm: Any, calls: Any, near: Any, prefix: str) -> None:
    provider = ScriptedProvider(answers=[calls("count", {"herd": "abc"}), "Three."])

    async def scenario(client: Any, stack: Any) -> None:
        body = {"connector_id": "mine", "url": farm.url, "server_label": "farm"}
        made = (await client.post(prefix, json=body)).json()
        assert (made["connector_id"], made["server_label"]) == ("mine", "farm")
        assert (await client.get(f"{prefix}/mine")).json()["server_name"] == "Llama farm"
        others = await client.get(f"{prefix}/mine", headers={"x-test-owner": "ben"})
        assert others.status_code == 404
        tool = {"type": "mcp", "server_label": "farm", "connector_id": "mine", "require_approval": "never"}
        answer = (await client.post("/v1/responses", json={"input": "x", "tools": [tool]})).json()
        assert [item["type"] for item in answer["output"]] == ["mcp_list_tools", "mcp_call", "message"]
        assert answer["tools"][0]["connector_id"] == "mine"
        assert (await client.delete(f"{prefix}/mine")).status_code == 204
        assert (await client.get(f"{prefix}/mine")).status_code == 404
        program = await client.post(prefix, json={**body, "url": "stdio://sh"})
        assert (program.status_code, program.json()["error"]["param"]) == (400, "url")

    serve(scenario, provider, prepare=near())


def test_a_connector_that_is_away(serve: Any, near: Any) -> None:
    connectors = {"away": ConnectorConfig("http://127.0.0.1:9/mcp"), "gone": ConnectorConfig(command=("/no/such",))}

    async def scenario(client: Any, stack: Any) -> None:
        for id in connectors:
            row = await client.get(f"/v1beta/connectors/{id}")
            assert (row.status_code, row.json()["server_name"]) == (200, None)
            tools = await client.get(f"/v1beta/connectors/{id}/tools")
            assert (tools.status_code, tools.json()["error"]["code"]) == (502, "mcp_error")

    serve(scenario, prepare=near(connectors))


def test_a_program_ends_with_the_server(serve: Any, farm_program: Any, near: Any) -> None:
    kept: list[Any] = []

    async def scenario(client: Any, stack: Any) -> None:
        tools = await client.get("/v1beta/connectors/files/tools")
        assert "count" in [tool["name"] for tool in tools.json()["data"]]
        kept.append(await stack.parts["mcp"].open("", Target(connector="files")))
        assert kept[0].transport.is_alive

    serve(scenario, prepare=near({"files": ConnectorConfig(command=farm_program)}))
    assert not kept[0].transport.is_alive
