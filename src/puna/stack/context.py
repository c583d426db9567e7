"""`Stack`: all that the routes of one server share; a route gets it, and who calls, by `stack_of` and `caller_of`."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.requests import HTTPConnection

from puna.stack.errors import ApiError, not_found
from puna.stack.providers.provider import ModelInfo, Provider
from puna.stack.state.files import FileStore
from puna.stack.state.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        owner: whose records it sees; "" on a server without keys.
        key_id: the key that it showed; "" for none.
        scopes: what the key may do; {"*"} for everything.
        provider_keys: the caller's own keys by provider, from a header of the request.
    """

    owner: str = ""
    key_id: str = ""
    scopes: frozenset[str] = frozenset({"*"})
    provider_keys: Mapping[str, str] = field(default_factory=dict)


class Stack:
    """A server's parts.

    Args:
        store: its records.
        files: the bytes of uploaded files.
        providers: by id.
    """

    def __init__(self, store: Store, files: FileStore, providers: Mapping[str, Provider]) -> None:
        self.store, self.files = store, files
        self.providers = dict(providers)
        self.started = time.time()
        self.parts: dict[str, Any] = {}  # what other areas keep for the server's life, by their name
        self._models: dict[str, tuple[Provider, ModelInfo]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        for provider in self.providers.values():
            await provider.start()
        await self.refresh_models()

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for provider in self.providers.values():
            await provider.stop()
        self.store.close()

    async def refresh_models(self) -> Mapping[str, tuple[Provider, ModelInfo]]:
        """Asks all providers what they offer; one that fails offers nothing."""
        found: dict[str, tuple[Provider, ModelInfo]] = {}
        for provider in self.providers.values():
            try:
                for model in await provider.models():
                    found[f"{provider.id}/{model.id}"] = provider, model
            except Exception:
                continue
        self._models = found
        return found

    @property
    def models(self) -> Mapping[str, tuple[Provider, ModelInfo]]:
        """Server id -> provider and model."""
        return self._models

    def model(self, id: str, type: str = "llm") -> tuple[Provider, ModelInfo]:
        """A model by its id here ("provider/model"), or by the provider's own where only one has it.

        Raises:
            ApiError: 404 for an unknown one, 400 for one of another type.
        """
        found = self._models.get(id)
        if found is None:
            same = [pair for pair in self._models.values() if pair[1].id == id]
            found = same[0] if len(same) == 1 else None
        if found is None:
            raise not_found("model", id, "model")
        if found[1].type != type:
            words = f"The model {id!r} is for {found[1].type}, not for {type}."
            raise ApiError(400, words, param="model", code="wrong_model_type")
        return found

    def part(self, name: str, make: Callable[[Stack], T]) -> T:
        """A part of the server by its name, made when it is first asked for."""
        if name not in self.parts:
            self.parts[name] = make(self)
        return self.parts[name]

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something beside the requests; it is cancelled when the server stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def stack_of(connection: HTTPConnection) -> Stack:
    return connection.app.state.stack


def caller_of(connection: HTTPConnection) -> Caller:
    """Who asks, as the middleware found out."""
    return getattr(connection.state, "caller", Caller())


def new_id(prefix: str) -> str:
    """ "resp_0123...": 24 random hexadecimal digits after a prefix."""
    return f"{prefix}_{secrets.token_hex(12)}"
