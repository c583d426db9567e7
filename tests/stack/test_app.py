"""The application: every refusal in one form, an id for every request, parts started and stopped."""

from __future__ import annotations

from pathlib import Path

import httpx
from fastapi import APIRouter
from pydantic import BaseModel

from puna.base.errors import InputError
from puna.stack.testing import ScriptedProvider, make_stack, talk

router = APIRouter()


class Body(BaseModel):
    count: int
    inner: dict[str, int] = {}


@router.post("/trial")
async def trial(body: Body) -> dict[str, int]:
    if body.count < 0:
        raise InputError("count is negative.", hint="Give 0 or more.")
    if body.count > 9:
        raise RuntimeError("secret")
    return {"count": body.count}


def test_every_refusal_has_one_form(tmp_path: Path) -> None:
    cases = [
        ({"json": {"count": "many"}}, 400, "count", "invalid_value", '"many"'),
        ({"json": {}}, 400, "count", "invalid_value", "Field required"),
        ({"json": {"count": 1, "inner": {"a": "b"}}}, 400, "inner.a", "invalid_value", "inner.a"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, None, "invalid_json", "not JSON"),
        ({"json": {"count": -1}}, 400, None, "invalid_value", "count is negative. Give 0 or more."),
        ({"json": {"count": 10}}, 500, None, "internal_error", "Something went wrong"),
    ]

    async def work(client: httpx.AsyncClient) -> None:
        for request, status, param, code, words in cases:
            answer = await client.post("/trial", **request)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"], error["code"]) == (status, param, code), answer.text
            assert words in error["message"]
            assert set(error) == {"message", "type", "param", "code"}
            assert answer.headers["x-request-id"].startswith("req_")
            assert "secret" not in answer.text
        for method, path, status in (("GET", "/nowhere", 404), ("GET", "/trial", 405)):
            answer = await client.request(method, path)
            assert answer.status_code == status
            assert path in answer.json()["error"]["message"]

    talk(make_stack(tmp_path), work, router)


def test_no_two_requests_have_one_id(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        ids = [(await client.post("/trial", json={"count": 1})).headers["x-request-id"] for _ in range(5)]
        assert len(set(ids)) == 5

    talk(make_stack(tmp_path), work, router)


def test_providers_live_as_long_as_the_application(tmp_path: Path) -> None:
    lives: list[str] = []

    class Watched(ScriptedProvider):
        async def start(self) -> None:
            lives.append("start")

        async def stop(self) -> None:
            lives.append("stop")

    async def work(client: httpx.AsyncClient) -> None:
        await client.post("/trial", json={"count": 1})
        assert lives == ["start"]

    talk(make_stack(tmp_path, Watched()), work, router)
    assert lives == ["start", "stop"]


def test_the_document_lists_every_route(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        assert "/trial" in document["paths"]
        assert document["info"]["title"] == "Puna"

    talk(make_stack(tmp_path), work, router)
