"""What the server says of itself over HTTP."""

from __future__ import annotations

from typing import Any

from puna.base.card import version
from puna.stack.providers.provider import Health
from puna.stack.testing import ScriptedProvider


class Sick(ScriptedProvider):
    """A provider that does not work."""

    async def health(self) -> Health:
        return Health(False, "It has a cold.")


def test_health_version_and_providers(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        health = await client.get("/v1/health")
        assert (health.status_code, health.json()["status"]) == (200, "OK")
        assert health.json()["degraded"] == {"provider sick": "It has a cold."}
        assert (await client.get("/v1/version")).json() == {"version": version()}
        rows = (await client.get("/v1/providers")).json()["data"]
        assert {"inference", "safety", "eval", "agents"} <= {row["api"] for row in rows}
        assert (await client.get("/v1/providers/sick")).json()["health"] == {
            "status": "Error",
            "message": "It has a cold.",
        }
        assert (await client.get("/v1/providers/none")).status_code == 404

    serve(scenario, ScriptedProvider("well"), Sick("sick"))


def test_a_server_that_can_answer_nothing_says_503(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        assert (await client.get("/v1/health")).status_code == 503

    serve(scenario, Sick("sick"))


def test_every_route_is_listed(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        rows = (await client.get("/v1/inspect/routes")).json()["data"]
        known = {(row["route"], row["method"]) for row in rows}
        assert ("/v1/safety/run-shield", "POST") in known
        document = (await client.get("/openapi.json")).json()["paths"]
        documented = {(path, method.upper()) for path, methods in document.items() for method in methods}
        assert known == documented
        types = {row["route"]: row["provider_types"] for row in rows}
        assert types["/v1/shields"] == ["inline::shields"]

    serve(scenario)
