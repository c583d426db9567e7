"""What a request passes on its way: keys, limits, sizes, and the log."""

from __future__ import annotations

import json
import logging

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from puna.stack.context import caller_of
from puna.stack.operation import keys
from puna.stack.operation.limits import Limits
from puna.stack.operation.metrics import Metrics
from puna.stack.operation.middleware import Access, BodyLimit, Gate
from puna.stack.state.sqlite import SqliteStore


async def echo(request: Request) -> JSONResponse:
    body = await request.body()
    caller = caller_of(request)
    return JSONResponse({"owner": caller.owner, "bytes": len(body), "keys": dict(caller.provider_keys)})


def app() -> Starlette:
    paths = ("/v1/chat/{id}", "/v1/files", "/v1/health", "/")
    return Starlette(routes=[Route(path, echo, methods=["GET", "POST"]) for path in paths])


def send(target, *requests: httpx.Request) -> list[httpx.Response]:
    async def go() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=target, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return [await client.send(request) for request in requests]

    return anyio.run(go)


def get(path: str, key: str = "", **headers: str) -> httpx.Request:
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return httpx.Request("GET", f"http://t{path}", headers=headers)


def test_a_key_opens_what_its_scopes_say(tmp_path) -> None:
    store = SqliteStore(tmp_path / "a.db")
    text, _ = keys.create(store, "ana", ["chat"])
    gate = Gate(app(), store, Limits(), required=True)
    found = send(gate, get("/v1/chat/1", text), get("/v1/files", text), get("/v1/chat/1"), get("/v1/chat/1", "sk-x"),
                 get("/v1/health"), get("/"), get("/v1/chat/1", **{"x-api-key": text}))  # fmt: skip
    assert [answer.status_code for answer in found] == [200, 403, 401, 401, 200, 200, 200]
    assert found[0].json()["owner"] == "ana"
    assert found[1].json()["error"]["code"] == "insufficient_scope"
    assert found[2].json()["error"]["type"] == "authentication_error"
    open_gate = Gate(app(), store, Limits(), required=False)
    free, wrong = send(open_gate, get("/v1/files", "anything"), get("/v1/files", "puna-x-y"))
    assert (free.status_code, free.json()["owner"], wrong.status_code) == (200, "", 401)


def test_limits_hold_and_health_is_free(tmp_path) -> None:
    gate = Gate(app(), SqliteStore(tmp_path / "a.db"), Limits(requests=2), required=False)
    found = send(gate, *[get("/v1/files")] * 3, *[get("/v1/health")] * 3)
    assert [answer.status_code for answer in found] == [200, 200, 429, 200, 200, 200]
    assert found[0].headers["x-ratelimit-remaining-requests"] == "1"
    assert int(found[2].headers["retry-after"]) > 0


def test_keys_for_providers_come_in_a_header(tmp_path) -> None:
    gate = Gate(app(), SqliteStore(tmp_path / "a.db"), Limits(), required=False)
    data = json.dumps({"openrouter_api_key": "k1", "vllm": "k2"})
    good, bad = send(gate, get("/v1/files", **{"X-LlamaStack-Provider-Data": data}),
                     get("/v1/files", **{"X-Puna-Provider-Data": "[1"}))  # fmt: skip
    assert good.json()["keys"] == {"openrouter": "k1", "vllm": "k2"}
    assert bad.status_code == 400


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_above_the_limit_is_refused(announced: bool) -> None:
    limited = BodyLimit(app(), most=1000, uploads=5000)

    async def chunks():
        for _ in range(11):
            yield b"x" * 100

    big = {"content": b"x" * 1100} if announced else {"content": chunks()}
    small, refused = send(limited, httpx.Request("POST", "http://t/v1/files", content=b"x" * 1000),
                          httpx.Request("POST", "http://t/v1/files", **big))  # fmt: skip
    assert (small.status_code, small.json()["bytes"]) == (200, 1000)
    assert refused.status_code in (413, 500)
    if announced:
        assert refused.json()["error"]["code"] == "request_too_large"


def test_the_log_names_the_route_and_no_id_or_query(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    with caplog.at_level(logging.INFO, "puna.access"):
        send(Access(app(), metrics), get("/v1/chat/secret-id?q=private"), get("/nowhere/private"))
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "puna.access"]
    assert [line["status"] for line in lines] == [200, 404]
    assert "private" not in caplog.text
    assert "secret-id" not in caplog.text
    assert 'status="404"' in metrics.text().decode()
