from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from pydantic import BaseModel

from puna.stack.responses.forms import FormsToo


class Body(BaseModel):
    input: str
    user: str | None = "x"
    temperature: float = 0.0
    tools: list[dict[str, Any]] = []


def send(**content: Any) -> Any:
    router = APIRouter(route_class=FormsToo)

    @router.post("/")
    async def echo(request: Request, body: Body) -> dict[str, Any]:
        return body.model_dump()

    app = FastAPI()
    app.include_router(router)

    async def post() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
            return (await client.post("/", **content)).json()

    return asyncio.run(post())


@pytest.mark.parametrize("text", ["hello & you", "42", "true", "null", ""])
def test_texts_stay_texts(text: str) -> None:
    assert send(data={"input": text})["input"] == text


def test_other_values_are_json() -> None:
    sent = send(data={"input": "x", "user": "null", "temperature": "0.5", "tools": '[{"type": "function"}]'})
    assert sent == {"input": "x", "user": None, "temperature": 0.5, "tools": [{"type": "function"}]}


def test_json_is_read_as_ever() -> None:
    assert send(json={"input": "42"})["input"] == "42"
