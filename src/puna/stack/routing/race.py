"""From an ordered list of candidates to the first piece of an answer: retries, failover, and hedges.

A candidate that fails in passing is asked again after a random wait; then, or where it wants a longer rest, the next
one is. With hedging a second candidate is asked while the first is late, as late as few of its requests are; who speaks
first is taken and the other dropped. All of this ends with the first piece: what comes after belongs to one provider,
since two halves of two answers are no answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from puna.base.errors import PunaError, RemoteError
from puna.core.completion import StreamEvent
from puna.stack.errors import ApiError
from puna.stack.providers.provider import Ask
from puna.stack.routing.accounts import Accounts, Hold, Short
from puna.stack.routing.attempt import Attempt, Line, kept
from puna.stack.routing.candidate import Candidate
from puna.stack.routing.config import RouteConfig
from puna.stack.routing.facts import Facts
from puna.stack.routing.failures import Failure, classify, wait
from puna.stack.routing.market import State
from puna.stack.routing.meter import quantile
from puna.stack.state.store import run

_log = logging.getLogger(__name__)
_LEAST_HISTORY = 20  # observations before a percentile says anything


@dataclass(slots=True)
class Race:
    """The attempts of one request.

    Attributes:
        ask: the request.
        facts: of it.
        order: whom to ask, in turn.
        state: of the providers.
        accounts: the money.
        config: of the route.
        keys: the caller's own keys by provider.
        began: when the request came, by the event loop's clock.
        capped: whether money is limited, so that an answer without a limit gets the route's.
        lines: the attempts so far.
    """

    ask: Ask
    facts: Facts
    order: Sequence[Candidate]
    state: State
    accounts: Accounts
    config: RouteConfig
    keys: Mapping[str, str]
    began: float
    capped: bool = False
    lines: list[Line] = field(default_factory=list)
    _next: int = 0
    _active: list[Attempt] = field(default_factory=list)
    _error: BaseException | None = None
    _fault: BaseException | None = None  # what one provider found wrong with the request
    _short: Short | None = None

    async def first(self) -> tuple[Attempt, StreamEvent]:
        """The attempt that spoke first, and what it said.

        Raises:
            ApiError: 429 where no budget is left.
            PunaError, ApiError: the last failure, where all have failed or the request itself is wrong.
        """
        try:
            while True:
                if not self._active and not await self._ask_next():
                    raise self._given_up()
                await asyncio.wait(
                    [attempt.first for attempt in self._active], timeout=self._patience(), return_when="FIRST_COMPLETED"
                )
                if (winner := await self._look()) is not None:
                    return winner, winner.first.result()
        except BaseException:
            closing = [attempt.dropped(self.state, self.accounts, "left") for attempt in self._active]
            self._active.clear()
            if closing:
                await asyncio.wait(closing)
            raise

    async def _look(self) -> Attempt | None:
        """Takes in what has happened: an answer, failures, or that it is time for a hedge."""
        for attempt in [attempt for attempt in self._active if attempt.first.done()]:
            if (error := attempt.first.exception()) is None:
                self._active.remove(attempt)
                for other in self._active:
                    # It would have taken longer than this: left out, its figures would tell of its quick answers alone.
                    self.state.meter.of(other.candidate.key).latencies.append(other.waited)
                    other.dropped(self.state, self.accounts, "outrun")
                self._active.clear()
                return attempt
            await self._failed(attempt, error)
        for attempt in [attempt for attempt in self._active if attempt.waited >= self.config.first_token_timeout]:
            await self._failed(attempt, TimeoutError(f"no first token within {self.config.first_token_timeout:g} s"))
        if len(self._active) == 1 and self._active[0].waited >= self._hedge_after(self._active[0]):
            await self._ask_next(hedge=True)
        return None

    def _patience(self) -> float:
        """Seconds until something has to be done though nobody has spoken."""
        until = [self.config.first_token_timeout - attempt.waited for attempt in self._active]
        if len(self._active) == 1 and self._next < len(self.order):
            until.append(self._hedge_after(self._active[0]) - self._active[0].waited)
        return max(0.0, min(until))

    def _hedge_after(self, attempt: Attempt) -> float:
        if not self.config.hedge or self._next >= len(self.order):
            return float("inf")
        seen = self.state.meter.of(attempt.candidate.key).latencies
        usual = quantile(seen, self.config.hedge) if len(seen) >= _LEAST_HISTORY else None
        return max(self.config.hedge_least, usual or 0.0)

    async def _ask_next(self, hedge: bool = False) -> bool:
        """Asks the next candidate that can be asked; whether there was one."""
        while self._next < len(self.order):
            candidate = self.order[self._next]
            self._next += 1
            if await self._begin(candidate, hedge):
                return True
        return False

    async def _begin(self, candidate: Candidate, hedge: bool, retry: int = 0) -> bool:
        line = Line(candidate.key, asyncio.get_running_loop().time() - self.began, hedge=hedge)
        self.lines.append(line)
        breaker = self.state.breaker(candidate.key)
        if not breaker.begin():
            line.outcome, line.error = "not ready", breaker.closed_to_all
            return False
        most = candidate.most(self.facts)
        if most is None and self.accounts.limited:
            breaker.dropped()
            line.outcome, line.error = "no budget", "nobody says what it costs, and the route has a budget"
            return False
        try:
            hold = await self._reserve(most or 0)
        except BaseException:
            breaker.dropped()
            raise
        if isinstance(hold, Short):
            breaker.dropped()
            line.outcome, line.error, self._short = "no budget", str(hold), hold
            return False
        params = self.ask.params
        if self.capped and self.facts.open_end:
            params = replace(params, max_tokens=self.facts.longest)
        key = self.keys.get(candidate.provider, "")
        ask = replace(self.ask, model=candidate.model, params=params, key=key)
        attempt = Attempt(candidate, self.state.providers[candidate.provider], ask, self.facts, hold, line)
        attempt.retry = retry
        self._active.append(attempt)
        return True

    async def _reserve(self, nano: int) -> Hold | Short:
        """Sets money aside; what is set aside for a caller who has left meanwhile is given back."""
        if not self.accounts.limited:
            return Hold(nano)
        reserving = kept(asyncio.ensure_future(run(self.accounts.reserve, self.ask.owner, nano)))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            kept(asyncio.ensure_future(self._give_back(reserving)))
            raise

    async def _give_back(self, reserving: asyncio.Task[Hold | Short]) -> None:
        if isinstance(hold := await reserving, Hold):
            await run(self.accounts.release, hold)

    async def _failed(self, attempt: Attempt, error: BaseException) -> None:
        """Ends an attempt; asks the same candidate again where that may help."""
        failure = classify(error)
        if not isinstance(error, PunaError | ApiError | OSError):
            _log.warning("%s failed in a way that no provider should", attempt.candidate.key, exc_info=error)
        self._active.remove(attempt)
        await attempt.fail(self.state, self.accounts, failure)
        if failure.kind == "request":
            # One provider may be narrower than the others; what two find wrong is wrong.
            if self._fault is not None:
                raise self._fault
            self._fault = error
            return
        self._error = error
        if not self._active and self._again(attempt, failure):
            jitter = wait(attempt.retry, self.config.first_wait, self.config.max_wait, random.SystemRandom())
            await asyncio.sleep(failure.retry_after + jitter)
            await self._begin(attempt.candidate, False, attempt.retry + 1)

    def _again(self, attempt: Attempt, failure: Failure) -> bool:
        if not failure.may_pass or attempt.retry >= self.config.retries:
            return False
        if failure.retry_after and self._next < len(self.order):
            return False  # another can be asked at once
        return failure.retry_after <= self.config.max_wait

    def _given_up(self) -> BaseException:
        if self._fault is not None:
            return self._fault
        if self._error is None:
            if self._short is not None:
                return out_of_budget(self._short)
            why = "; ".join(f"{line.candidate}: {line.error}" for line in self.lines)
            return ApiError(503, f"No provider can be asked now. {why}.", code="no_provider")
        if isinstance(self._error, TimeoutError):
            return RemoteError(f"{self.lines[-1].candidate}: {self._error}.", hint="Raise first_token_timeout.")
        return self._error


def out_of_budget(short: Short) -> ApiError:
    """The refusal that OpenAI's clients know; they are told not to try again today."""
    return ApiError(
        429,
        f"No money is left: {short}. It is given anew at midnight UTC.",
        code="insufficient_quota",
        headers={"x-should-retry": "false"},
    )
