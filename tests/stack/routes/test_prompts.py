"""Prompts with versions."""

from __future__ import annotations

import asyncio
from typing import Any


def test_versions_and_the_default_one(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        made = (await client.post("/v1/prompts", json={"prompt": "Hi {{ name }}", "variables": ["name"]})).json()
        path = f"/v1/prompts/{made['prompt_id']}"
        assert (made["version"], made["is_default"], len(made["prompt_id"])) == (1, True, 53)
        update = {"prompt": "Bye {{name}}", "variables": ["name"], "version": 1, "set_as_default": False}
        second = (await client.post(path, json=update)).json()
        assert (second["version"], second["is_default"]) == (2, False)
        assert (await client.get(path)).json()["prompt"] == "Hi {{ name }}"
        assert (await client.get(path, params={"version": 2})).json() == second
        assert (await client.put(path, json=update)).status_code == 409
        chosen = await client.post(f"{path}/set-default-version", json={"version": 2})
        assert chosen.json()["is_default"]
        assert (await client.get(path)).json()["version"] == 2
        versions = (await client.get(f"{path}/versions")).json()["data"]
        assert [(row["version"], row["is_default"]) for row in versions] == [(1, False), (2, True)]
        assert [row["version"] for row in (await client.get("/v1/prompts")).json()["data"]] == [2]
        assert (await client.get(path, headers={"x-test-owner": "you"})).status_code == 404
        for bad in ({"version": 9}, {"version": 0}):
            assert (await client.put(f"{path}/set-default-version", json=bad)).status_code in (400, 404)
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(f"{path}/versions")).status_code == 404

    serve(scenario)


def test_a_variable_must_be_named(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        refused = (await client.post("/v1/prompts", json={"prompt": "{{a}} {{ b }}", "variables": ["a"]})).json()[
            "error"
        ]
        assert refused["message"] == "The prompt uses b, which variables does not name."

    serve(scenario)


def test_of_two_updates_at_once_one_is_refused(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        made = (await client.post("/v1/prompts", json={"prompt": "x"})).json()
        update = {"prompt": "y", "version": 1}
        answers = await asyncio.gather(
            *(client.post(f"/v1/prompts/{made['prompt_id']}", json=update) for _ in range(4))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]

    serve(scenario)
