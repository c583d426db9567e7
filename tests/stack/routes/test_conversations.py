from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from puna.stack.testing import make_stack, running


def serve(folder: Path, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def do() -> None:
        async with running(make_stack(folder)) as server, server.client(path="/v1", raises=True) as client:
            await work(client)

    asyncio.run(do())


def said(text: str, **fields: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": text, **fields}


def texts(page: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in page["data"]]


def test_a_conversation_lives_and_ends(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = (await client.post("/conversations", json={"metadata": {"topic": "bolts"}})).json()
        url = f"/conversations/{made['id']}"
        assert made["object"] == "conversation"
        assert made["metadata"] == {"topic": "bolts"}
        assert (await client.get(url)).json() == made
        changed = (await client.post(url, json={"metadata": {"topic": "nuts"}})).json()
        assert changed == {**made, "metadata": {"topic": "nuts"}}
        await client.post(f"{url}/items", json={"items": [said("a")]})
        assert (await client.delete(url)).json() == {
            "id": made["id"],
            "object": "conversation.deleted",
            "deleted": True,
        }
        change = {"metadata": {}}
        for gone in (client.get(url), client.delete(url), client.get(f"{url}/items"), client.post(url, json=change)):
            answer = await gone
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "not_found"

    serve(tmp_path, work)


def test_an_owner_finds_its_conversations_again(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = [(await client.post("/conversations")).json()["id"] for _ in range(3)]
        page = (await client.get("/conversations", params={"limit": 2})).json()
        assert [one["id"] for one in page["data"]] == made[:0:-1]
        assert page["has_more"]
        rest = (await client.get("/conversations", params={"after": page["last_id"], "limit": 2})).json()
        assert [one["id"] for one in rest["data"]] == made[:1]

    serve(tmp_path, work)


def test_a_body_may_be_left_out(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.post("/conversations")).json()["metadata"] == {}

    serve(tmp_path, work)


def test_items_are_added_read_and_deleted(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = (await client.post("/conversations", json={"items": [said("a", id="msg_a")]})).json()
        url = f"/conversations/{made['id']}/items"
        added = (await client.post(url, json={"items": [said("b"), said("c")]})).json()
        assert texts(added) == ["b", "c"]
        item = (await client.get(f"{url}/msg_a")).json()
        assert (item["id"], item["status"], item["role"]) == ("msg_a", "completed", "user")
        assert (await client.delete(f"{url}/msg_a")).json() == made
        assert (await client.get(f"{url}/msg_a")).status_code == 404
        assert (await client.delete(f"{url}/msg_a")).status_code == 404
        assert texts((await client.get(url)).json()) == ["c", "b"]

    serve(tmp_path, work)


def test_items_are_paged_both_ways(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = (await client.post("/conversations", json={"items": [said(text) for text in "abcde"]})).json()
        url = f"/conversations/{made['id']}/items"
        for order, expected in (("asc", "abcde"), ("desc", "edcba")):
            seen: list[str] = []
            params: dict[str, Any] = {"limit": 2, "order": order}
            while True:
                page = (await client.get(url, params=params)).json()
                seen += texts(page)
                if not page["has_more"]:
                    break
                params["after"] = page["last_id"]
            assert "".join(seen) == expected
        assert (await client.get(url, params={"after": "msg_0"})).status_code == 404
        assert (await client.get(url, params={"limit": 101})).status_code == 400

    serve(tmp_path, work)


def test_an_id_that_is_taken_adds_nothing(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        made = (await client.post("/conversations", json={"items": [said("a", id="msg_a")]})).json()
        url = f"/conversations/{made['id']}/items"
        refused = await client.post(url, json={"items": [said("b"), said("again", id="msg_a")]})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "items.1.id"
        assert texts((await client.get(url)).json()) == ["a"]
        # In another conversation the id is free; it means the same item.
        other = (await client.post("/conversations", json={"items": [said("b", id="msg_a")]})).json()
        await client.delete(f"{url}/msg_a")
        copied = (await client.get(f"/conversations/{other['id']}/items/msg_a")).json()
        assert copied["content"][0]["text"] == "a"
        # Nobody has it any more after the other conversation is gone as well.
        await client.delete(f"/conversations/{other['id']}")
        await client.post(url, json={"items": [said("c", id="msg_a")]})
        assert texts((await client.get(url)).json()) == ["c"]

    serve(tmp_path, work)


def test_bad_items_are_refused_with_their_place(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/conversations", json={"items": [said("a"), {"type": "spell"}]})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "items.1.type"
        many = await client.post("/conversations", json={"items": [said("a")] * 21})
        assert many.status_code == 400

    serve(tmp_path, work)
