"""One attempt: a provider's stream, its first event as a task, the money held for it, and its line in the record.

Whatever becomes of it, it ends in exactly one of `finish`, `fail` and `drop`: the stream is closed, the circuit told,
the money settled, the ledger written. A task of its own does that, so that it is done even where the caller is
cancelled.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from puna.base.errors import RemoteError
from puna.core.completion import Completion, StreamEvent, TextDelta
from puna.stack import spans
from puna.stack.providers.provider import Ask, Provider
from puna.stack.routing.accounts import Accounts, Hold
from puna.stack.routing.candidate import ITSELF, Candidate
from puna.stack.routing.facts import Facts
from puna.stack.routing.failures import Failure
from puna.stack.routing.market import State
from puna.stack.routing.prices import NANO, dollars
from puna.stack.state.store import run

_BYTES_PER_TOKEN = 4
_kept: set[asyncio.Task[Any]] = set()
T = TypeVar("T")


@dataclass(slots=True)
class Line:
    """What a record says of an attempt.

    Attributes:
        candidate: "provider/model".
        at: seconds since the request began.
        outcome: "answered", "failed", "late", "cut" (after text was handed out), "outrun" (by a hedge), "left" (by the
            caller), "no budget", "not ready" (its circuit opened meanwhile).
        hedge: whether it was made while another was waited for.
        first_token: seconds to its first piece.
        seconds: to its end.
        cost: dollars.
        error: one line.
    """

    candidate: str
    at: float
    outcome: str = ""
    hedge: bool = False
    first_token: float | None = None
    seconds: float | None = None
    cost: float = 0.0
    error: str = ""


class Attempt:
    """A stream under way.

    Args:
        candidate: whose it is.
        provider: that one's.
        ask: the request as it is sent there.
        facts: of the request.
        hold: the money set aside for it.
        line: its part of the record.
    """

    def __init__(
        self, candidate: Candidate, provider: Provider, ask: Ask, facts: Facts, hold: Hold, line: Line
    ) -> None:
        self.candidate, self.ask, self.facts, self.hold, self.line = candidate, ask, facts, hold, line
        self.started = time.monotonic()
        self.retry = 0
        self._events = cast(AsyncIterator[StreamEvent], provider.stream(ask))
        self._name = provider.id
        self._bytes = self._pieces = 0
        what = {"puna.routing.candidate": candidate.key, "puna.routing.hedge": line.hedge}
        self._span = spans.begin(f"attempt {candidate.key}", what)
        with spans.inside(self._span):
            self.first = asyncio.ensure_future(self._next())

    @property
    def waited(self) -> float:
        return time.monotonic() - self.started

    async def next(self, timeout: float) -> StreamEvent:
        """The event after those that were given.

        Raises:
            RemoteError: the stream has ended without `Done`.
            TimeoutError: nothing came.
        """
        async with asyncio.timeout(timeout):
            return await self._next()

    async def _next(self) -> StreamEvent:
        try:
            event = await anext(self._events)
        except StopAsyncIteration:
            raise RemoteError(f"{self._name} ended its answer without saying that it is complete.") from None
        if self.line.first_token is None:
            self.line.first_token = self.waited
        self._pieces += 1
        if isinstance(event, TextDelta):
            self._bytes += len(event.text.encode())
        return event

    async def finish(
        self,
        state: State,
        accounts: Accounts,
        completion: Completion,
        record: Callable[[], Mapping[str, Any]] | None = None,
    ) -> int:
        """It has answered; gives the price in nanodollars. `record` makes the decision's record, which is kept too."""
        line, usage = self.line, completion.usage
        state.breaker(self.candidate.key).succeeded()
        latency = line.first_token or 0.0
        state.meter.of(self.candidate.key).answered(latency, self.waited - latency, usage)
        state.meter.learn_length(usage.completion_tokens)
        state.affinity.remember(self.candidate.key, self.ask, usage.prompt_tokens)
        nano = self._bill(completion)
        line.outcome = "answered"
        tokens = {"prompt_tokens": usage.prompt_tokens, "cached_tokens": usage.cached_tokens,
                  "completion_tokens": usage.completion_tokens}  # fmt: skip
        await self._end(accounts, nano, tokens, record)
        return nano

    async def fail(self, state: State, accounts: Accounts, failure: Failure, cut: bool = False) -> None:
        """It has failed, before its first piece or, with `cut`, after."""
        self.line.outcome = "cut" if cut else "late" if failure.kind == "late" else "failed"
        self.line.error = failure.message
        breaker = state.breaker(self.candidate.key)
        if failure.blames_provider:
            breaker.failed(failure.retry_after)
            state.meter.of(self.candidate.key).failed()
        else:
            breaker.dropped()
        # A provider that refuses bills nothing; one that was silent, or broke off, may bill what it had done.
        await self._end(accounts, self._so_far() if cut or failure.kind == "late" else 0)

    async def drop(self, state: State, accounts: Accounts, outcome: str) -> None:
        """Nobody wants it any more."""
        await asyncio.shield(self.dropped(state, accounts, outcome))

    def dropped(self, state: State, accounts: Accounts, outcome: str) -> asyncio.Task[None]:
        """Begins to end it; for who has several to end, and may be cancelled meanwhile."""
        self.line.outcome = outcome
        state.breaker(self.candidate.key).dropped()
        return self._closed(accounts, self._so_far())

    def _bill(self, completion: Completion) -> int:
        """What was asked for: the provider's own figure where its prices are its own, else by the rates."""
        rates = self.candidate.rates
        if rates is None or (self.candidate.price_source == ITSELF and completion.cost > 0):
            return math.ceil(round(completion.cost * NANO, 3))
        return rates.of(completion.usage)

    def _so_far(self) -> int:
        """Nanodollars for the prompt and for what has come, by estimate, and never more than was set aside."""
        rates = self.candidate.rates
        if rates is None:
            return 0
        output = max(self._pieces, -(-self._bytes // _BYTES_PER_TOKEN))
        return min(self.hold.nano, rates.cost(self.facts.prompt_tokens, output, self.candidate.cached_tokens))

    async def _end(
        self,
        accounts: Accounts,
        nano: int,
        tokens: Mapping[str, Any] | None = None,
        record: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        await asyncio.shield(self._closed(accounts, nano, tokens, record))

    def _closed(
        self,
        accounts: Accounts,
        nano: int,
        tokens: Mapping[str, Any] | None = None,
        record: Callable[[], Mapping[str, Any]] | None = None,
    ) -> asyncio.Task[None]:
        """Writes the line at once; the rest is a task that goes on though its caller is cancelled."""
        self.line.seconds, self.line.cost = self.waited, dollars(nano)
        entry = {"candidate": self.candidate.key, "outcome": self.line.outcome, "estimated": not tokens and nano > 0}
        closing = asyncio.ensure_future(self._close(accounts, nano, {**entry, **(tokens or {})}, record and record()))
        return kept(closing)

    async def _close(
        self, accounts: Accounts, nano: int, entry: Mapping[str, Any], record: Mapping[str, Any] | None
    ) -> None:
        if not self.first.done():
            self.first.cancel()
            await asyncio.wait([self.first])
        if not self.first.cancelled():
            self.first.exception()  # has been seen
        with suppress(Exception):
            await cast(Any, self._events).aclose()
        if self._span is not None:
            outcome = str(entry["outcome"])
            self._span.set({"puna.routing.outcome": outcome, "puna.cost.dollars": dollars(nano)})
            self._span.end(outcome if outcome in ("failed", "late", "cut") else "")
        await run(accounts.settle, self.hold, self.ask.owner, nano, entry, record)


def kept(task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Holds a task until it has ended: one that nobody holds may vanish."""
    _kept.add(task)
    task.add_done_callback(_kept.discard)
    return task


async def settled() -> None:
    """Waits until all that was held here has ended; what is written by it needs the store."""
    here = asyncio.get_running_loop()
    while waiting := [task for task in _kept if task.get_loop() is here]:
        await asyncio.wait(waiting)
