"""Shields over HTTP."""

from __future__ import annotations

from typing import Any

OWNER = "x-test-owner"
BODY = {"shield_id": "org/words", "params": {"patterns": {"bad": "forbidden"}}, "provider_id": "regex"}


def test_a_shields_life(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        made = (await client.post("/v1/shields", json=BODY)).json()
        assert (made["identifier"], made["provider_id"], made["type"]) == ("org/words", "regex", "shield")
        assert (await client.get("/v1/shields")).json()["data"] == [made]
        assert (await client.get("/v1/shields/org/words")).json() == made
        assert (await client.get("/v1/shields/org/words", headers={OWNER: "you"})).status_code == 404
        assert (await client.delete("/v1/shields/org/words")).status_code == 204
        assert (await client.get("/v1/shields/org/words")).json()["error"]["type"] == "not_found_error"

    serve(scenario)


def test_run_shield_gives_null_or_a_violation_with_its_level(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        await client.post("/v1/shields", json=BODY)
        for content, level in (
            ("fine", None),
            ("forbidden", "error"),
            ([{"type": "text", "text": "forbidden"}], "error"),
        ):
            ask = {"shield_id": "org/words", "messages": [{"role": "user", "content": content}], "params": {}}
            found = (await client.post("/v1/safety/run-shield", json=ask)).json()["violation"]
            assert (found and found["violation_level"]) == level
        ask = {"shield_id": "none", "messages": [{"role": "user", "content": "x"}]}
        assert (await client.post("/v1/safety/run-shield", json=ask)).status_code == 404
        assert (await client.post("/v1/safety/run-shield", json=ask | {"messages": []})).status_code == 400

    serve(scenario)


def test_a_shield_that_cannot_be_answers_501(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        answer = await client.post("/v1/shields", json={"shield_id": "guard", "provider_id": "inline::llama-guard"})
        assert answer.status_code == 501
        assert "weights" in answer.json()["error"]["message"]

    serve(scenario)
