from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.routes.feedback import router
from puna.stack.testing import make_stack

PROMPT = [{"role": "user", "content": "What eats a llama? 🦙"}]
PAIR = {
    "kind": "pair",
    "prompt": PROMPT,
    "chosen": {"role": "assistant", "content": "Grass."},
    "rejected": {"role": "assistant", "content": "Stones."},
    "source": "compare",
    "model": "local/cria",
    "consent": True,
}
RATING = {"kind": "rating", "prompt": PROMPT, "answer": PAIR["chosen"], "rating": 1, "consent": True}
Work = Callable[[httpx.AsyncClient], Awaitable[Any]]


class Owners:
    """Names the caller by a header."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            owner = dict(scope["headers"]).get(b"owner", b"").decode()
            scope.setdefault("state", {})["caller"] = Caller(owner)
        await self.app(scope, receive, send)


def talk(folder: Path, work: Work) -> Any:
    from puna.stack.app import _refused

    async def run() -> Any:
        app = FastAPI()
        app.state.stack = make_stack(folder)
        app.include_router(router)
        from fastapi.exceptions import RequestValidationError

        for kind in (ApiError, RequestValidationError):
            app.add_exception_handler(kind, _refused)
        app.add_middleware(Owners)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            try:
                return await work(client)
            finally:
                await app.state.stack.stop()

    return asyncio.run(run())


def test_pairs_are_kept_listed_exported_and_deleted(tmp_path: Path):
    async def work(client: httpx.AsyncClient) -> None:
        pair = (await client.post("/v1alpha/feedback", json=PAIR)).json()
        assert (pair["object"], pair["chosen"], pair["source"]) == ("feedback", PAIR["chosen"], "compare")
        rating = (await client.post("/v1alpha/feedback", json=RATING)).json()
        listed = (await client.get("/v1alpha/feedback")).json()
        assert [one["id"] for one in listed["data"]] == [rating["id"], pair["id"]]
        export = await client.get("/v1alpha/feedback/export")
        assert export.headers["content-type"].startswith("application/x-ndjson")
        (line,) = export.text.splitlines()
        assert json.loads(line) == {"prompt": PROMPT, "chosen": [PAIR["chosen"]], "rejected": [PAIR["rejected"]]}
        assert (await client.delete(f"/v1alpha/feedback/{pair['id']}")).json()["deleted"] is True
        assert (await client.delete(f"/v1alpha/feedback/{pair['id']}")).status_code == 404
        assert (await client.get("/v1alpha/feedback/export")).text == ""

    talk(tmp_path, work)


def test_an_export_of_many_is_whole_and_in_order(tmp_path: Path):
    async def work(client: httpx.AsyncClient) -> None:
        for i in range(205):
            body = PAIR | {"chosen": {"role": "assistant", "content": str(i)}}
            assert (await client.post("/v1alpha/feedback", json=body)).status_code == 200
        lines = (await client.get("/v1alpha/feedback/export")).text.splitlines()
        assert [json.loads(line)["chosen"][0]["content"] for line in lines] == [str(i) for i in range(205)]

    talk(tmp_path, work)


def test_an_owner_sees_their_own_alone(tmp_path: Path):
    async def work(client: httpx.AsyncClient) -> None:
        mine = (await client.post("/v1alpha/feedback", json=PAIR, headers={"owner": "a"})).json()["id"]
        other = {"owner": "b"}
        assert (await client.get("/v1alpha/feedback", headers=other)).json()["data"] == []
        assert (await client.get("/v1alpha/feedback/export", headers=other)).text == ""
        assert (await client.delete(f"/v1alpha/feedback/{mine}", headers=other)).status_code == 404
        assert len((await client.get("/v1alpha/feedback", headers={"owner": "a"})).json()["data"]) == 1

    talk(tmp_path, work)


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"consent": False}, 403, "consent"),
        ({"prompt": []}, 400, "pair.prompt"),
        ({"prompt": [{"role": "nobody", "content": ""}]}, 400, "prompt"),
        ({"chosen": {"role": "user", "content": "x"}}, 400, "chosen"),
        ({"chosen": {"role": "assistant", "content": 3}}, 400, "chosen"),
        ({"chosen": {"role": "assistant", "tool_calls": 3}}, 400, "chosen"),
        ({"rejected": PAIR["chosen"]}, 400, "rejected"),
        ({"source": "x"}, 400, "pair.source"),
        ({"kind": "x"}, 400, None),
    ],
)
def test_what_cannot_be_kept_is_refused_and_nothing_is(tmp_path: Path, change: Any, status: int, param: str | None):
    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1alpha/feedback", json=PAIR | change)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        assert (await client.get("/v1alpha/feedback")).json()["data"] == []

    talk(tmp_path, work)


def test_half_of_a_surrogate_pair_does_not_fail(tmp_path: Path):
    async def work(client: httpx.AsyncClient) -> None:
        body = json.dumps(PAIR | {"chosen": {"role": "assistant", "content": "\ud800"}, "model": "\udfff"})
        answer = await client.post("/v1alpha/feedback", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200
        assert (await client.get("/v1alpha/feedback/export")).json()["chosen"][0]["content"] == "\ufffd"

    talk(tmp_path, work)
