"""The server asks itself on its user's behalf, and waits where it has too much to do."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from puna.stack.batches.caller import OwnClient, Reply
from puna.stack.context import Caller


class App:
    """Answers from a list and keeps who asked what."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Caller, Any]] = []
        self.app = Starlette(routes=[Route("/v1/thing", self.thing, methods=["POST"])])

    async def thing(self, request: Request) -> Response:
        self.asked.append((request.state.caller, await request.json()))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def post(app: App, pause: float = 0.01) -> Reply:
    return asyncio.run(OwnClient(app.app, pause).post(Caller("ada", "k1"), "/v1/thing", {"a": [1]}))


def test_a_request_bears_its_owner() -> None:
    app = App(JSONResponse({"ok": True}, headers={"X-Request-Id": "req_1"}))
    assert post(app) == Reply(200, "req_1", {"ok": True})
    assert app.asked == [(Caller("ada", "k1"), {"a": [1]})]


def test_a_refusal_for_now_is_asked_again_after_the_time_that_it_names() -> None:
    app = App(JSONResponse({}, 429, {"Retry-After": "0.2"}), JSONResponse({}, 503), JSONResponse({"ok": True}))
    started = time.monotonic()
    assert post(app).status == 200
    assert time.monotonic() - started >= 0.2
    assert len(app.asked) == 3


def test_it_does_not_ask_for_ever() -> None:
    app = App(*(JSONResponse({"n": n}, 429) for n in range(10)))
    assert post(app) == Reply(429, "", {"n": 3})


def test_another_refusal_is_not_asked_again() -> None:
    app = App(JSONResponse({"error": {}}, 400))
    assert post(app).status == 400
    assert len(app.asked) == 1


def test_a_route_that_breaks_is_an_answer_too() -> None:
    assert post(App(RuntimeError("broken"))).status == 500


def test_an_answer_that_is_no_json_is_kept_as_text() -> None:
    assert post(App(PlainTextResponse("hello"))).body == {"text": "hello"}
