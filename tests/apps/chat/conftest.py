"""A small server with the page, that answers as the API's documents say; and a headless browser."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from puna.apps.chat.page import router

DOCUMENT = "Grüße 🦙 from the meadow.\nA llama eats grass.\nIt is raised in the puna."
Json = dict[str, Any]


class ScriptedServer:
    """What the page sees of a server.

    Attributes:
        answers: texts, or lists of deltas of a chat completion, in turn; then an echo of the question.
        pause: seconds between two pieces.
        models: ids on offer.
        shields: id -> the word that it forbids.
        reader: question -> cited answer; None for a run without one.
        asked: bodies of chat completions.
        closed: streams whose client left.
        key: that every request must show; "" for none.
    """

    def __init__(self) -> None:
        self.answers: list[str | list[Json]] = []
        self.pause = 0.0
        self.models = ["local/cria", "local/llama"]
        self.shields: dict[str, str] = {}
        self.reader: dict[str, Json] | None = None
        self.asked: list[Json] = []
        self.closed = 0
        self.conversations: dict[str, Json] = {}
        self.items: dict[str, list[Json]] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.stores: dict[str, Json] = {}
        self.feedback: list[Json] = []
        self.key = ""
        self.url = ""

    def app(self) -> FastAPI:
        app = FastAPI(docs_url=None, openapi_url=None)
        app.include_router(router)
        app.add_api_route("/v1/{path:path}", self.v1, methods=["GET", "POST", "DELETE"], response_model=None)
        app.add_api_route("/v1alpha/{path:path}", self.v1alpha, methods=["GET", "POST"], response_model=None)
        return app

    async def v1(self, request: Request, path: str) -> Response:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return missing(401)
        name, *rest = path.split("/")
        handler = getattr(self, f"_{name}", None)
        return await handler(request, rest) if handler else missing()

    async def v1alpha(self, request: Request, path: str) -> Response:
        if path == "feedback":
            self.feedback.append(await request.json())
            return JSONResponse({"id": "fb_1"})
        if not path.startswith("reader/") or self.reader is None:
            return missing(501)
        if path == "reader/answer":
            question = (await request.json())["question"]
            nothing = {"text": "The text does not say.", "citations": [], "confidence": 0.9}
            return JSONResponse(self.reader.get(question, nothing))
        if "source" not in request.query_params:
            return missing(400)
        return JSONResponse({"source": request.query_params["source"], "text": DOCUMENT})

    # Routes below /v1 ------------------------------------------------------------------------------------------------

    async def _models(self, request: Request, rest: list[str]) -> Response:
        meta = {"model_type": "llm", "context_length": 120, "price": {"input": 1.0, "output": 2.0}}
        return JSONResponse({"data": [{"id": id, "object": "model", "custom_metadata": meta} for id in self.models]})

    async def _tokenize(self, request: Request, rest: list[str]) -> Response:
        words = (await request.json())["content"].split()
        return JSONResponse({"tokens": list(range(len(words))), "count": len(words)})

    async def _shields(self, request: Request, rest: list[str]) -> Response:
        return JSONResponse({"data": [{"identifier": id, "type": "shield"} for id in self.shields]})

    async def _safety(self, request: Request, rest: list[str]) -> Response:
        body = await request.json()
        bad = self.shields[body["shield_id"]] in body["messages"][-1]["content"]
        violation = {"violation_level": "error", "user_message": "That is not for here.", "metadata": {}}
        return JSONResponse({"violation": violation if bad else None})

    async def _chat(self, request: Request, rest: list[str]) -> Response:
        body = await request.json()
        self.asked.append(body)
        answer = self.answers.pop(0) if self.answers else f"You said: {body['messages'][-1]['content']}"
        deltas = [{"content": piece} for piece in pieces(answer)] if isinstance(answer, str) else answer
        return StreamingResponse(self._stream(deltas, body), media_type="text/event-stream")

    async def _stream(self, deltas: list[Json], body: Json) -> AsyncIterator[str]:
        def chunk(delta: Json, finish: str | None = None) -> str:
            logprobs = delta.pop("logprobs", None)
            choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
            return f"data: {JSONResponse({'choices': [choice]}).body.decode()}\n\n"

        try:
            for delta in deltas:
                await asyncio.sleep(self.pause)
                yield chunk(dict(delta))
            calls = any("tool_calls" in delta for delta in deltas)
            yield chunk({}, "tool_calls" if calls else "stop")
            yield f'data: {{"choices": [], "usage": {{"prompt_tokens": 7, "completion_tokens": {len(deltas)}}}}}\n\n'
            yield "data: [DONE]\n\n"
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise

    async def _conversations(self, request: Request, rest: list[str]) -> Response:
        if not rest:
            if request.method == "GET":
                return JSONResponse({"data": list(self.conversations.values()), "has_more": False})
            id = f"conv_{len(self.conversations)}"
            body = await request.json()
            self.conversations[id] = {"id": id, "metadata": body.get("metadata") or {}, "created_at": int(time.time())}
            self.items[id] = self._named(body.get("items") or [])
            return JSONResponse(self.conversations[id])
        id = rest[0]
        if id not in self.conversations:
            return missing()
        if request.method == "DELETE":
            del self.conversations[id], self.items[id]
            return JSONResponse({"id": id, "deleted": True})
        if rest[1:] == ["items"]:
            if request.method == "POST":
                made = self._named((await request.json())["items"])
                if len(made) > 20:
                    return missing(400)
                self.items[id] += made
                return JSONResponse({"data": made})
            ids = [item["id"] for item in self.items[id]]
            after = request.query_params.get("after")
            start, most = ids.index(after) + 1 if after else 0, int(request.query_params["limit"])
            page = self.items[id][start : start + most]
            return JSONResponse({"data": page, "has_more": start + most < len(ids)})
        if request.method == "POST":
            self.conversations[id]["metadata"] = (await request.json())["metadata"]
        return JSONResponse(self.conversations[id])

    def _named(self, items: list[Json]) -> list[Json]:
        start = sum(map(len, self.items.values()))
        return [{"id": f"item_{start + i}", **item} for i, item in enumerate(items)]

    async def _files(self, request: Request, rest: list[str]) -> Response:
        if rest:
            name, content = self.files[rest[0]]
            return Response(content) if rest[1:] else JSONResponse({"id": rest[0], "filename": name})
        async with request.form() as form:
            file: Any = form["file"]
            id = f"file_{len(self.files)}"
            self.files[id] = file.filename, await file.read()
            return JSONResponse({"id": id, "filename": file.filename})

    async def _vector_stores(self, request: Request, rest: list[str]) -> Response:
        if not rest:
            if request.method == "POST":
                id = f"vs_{len(self.stores)}"
                self.stores[id] = {"id": id, "name": (await request.json())["name"], "files": []}
                return JSONResponse(self.stores[id])
            return JSONResponse({"data": list(self.stores.values())})
        files: list[str] = self.stores[rest[0]]["files"]
        if rest[1] == "search":
            found = [(id, self.files[id]) for id in files]
            hits = [
                {"file_id": id, "filename": name, "score": 1.0, "content": [{"type": "text", "text": text(content)}]}
                for id, (name, content) in found
            ]
            return JSONResponse({"data": hits})
        if rest[-1] == "content":
            return JSONResponse({"data": [{"type": "text", "text": text(self.files[rest[2]][1])}]})
        if request.method == "POST":
            files.append((await request.json())["file_id"])
        return JSONResponse({"data": [{"id": id, "status": "completed"} for id in files]})


def text(content: bytes) -> str:
    return content.decode(errors="replace")


def pieces(answer: str) -> list[str]:
    words = answer.split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)]


def missing(status: int = 404) -> Response:
    return JSONResponse({"error": {"message": "There is no such thing.", "code": "not_found"}}, status)


@contextmanager
def serving(app: FastAPI, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The address of an application that answers on this machine alone."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan=lifespan, timeout_graceful_shutdown=1))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        running.should_exit = True
        thread.join(10)


@pytest.fixture
def served() -> Callable[..., AbstractContextManager[str]]:
    return serving


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    with serving(scripted.app()) as scripted.url:
        yield scripted


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, skipped where there is none; for a module, as its driver holds the thread's event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()
