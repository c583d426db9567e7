"""A circuit breaker: who fails again and again is left alone for a while, and then tried with one request.

Closed: requests go through. Open: none does, after `trip` failures in a row or because the provider asked for a rest
(Retry-After). Half open: the time is over and one request at a time goes through; its success closes the circuit, its
failure opens it again for twice as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

_LONGEST = 600.0  # seconds

State = Literal["closed", "open", "half_open"]


class Breaker:
    """One provider's circuit.

    Args:
        trip: failures in a row that open it.
        cool_down: seconds that it stays open the first time.
        clock: seconds.
    """

    def __init__(self, trip: int = 5, cool_down: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.trip, self.cool_down = trip, cool_down
        self._clock = clock
        self._failures = 0
        self._opened = 0  # how often, without a success between
        self._until: float | None = None  # None while closed
        self._probing = False

    @property
    def state(self) -> State:
        if self._until is None:
            return "closed"
        return "open" if self._clock() < self._until else "half_open"

    @property
    def closed_to_all(self) -> str:
        """Why no request may go through now; "" where one may."""
        if self.state == "open":
            assert self._until is not None
            left = self._until - self._clock()
            why = f"{self._failures} failures in a row" if self._failures >= self.trip else "it asked for a rest"
            return f"circuit open for {left:.1f} s more: {why}"
        if self.state == "half_open" and self._probing:
            return "circuit half open: one request is trying it"
        return ""

    def begin(self) -> bool:
        """Lets a request through, or not. One that goes through must end in `succeeded`, `failed` or `dropped`."""
        if self.closed_to_all:
            return False
        if self.state == "half_open":
            self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures = self._opened = 0
        self._until, self._probing = None, False

    def failed(self, rest: float = 0.0) -> None:
        """A request failed; the provider asks to be left alone for `rest` seconds."""
        self._failures += 1
        probe, self._probing = self._until is not None, False
        if probe or self._failures >= self.trip:
            self._open(min(self.cool_down * 2**self._opened, _LONGEST))
            self._opened += 1
        if rest > 0:
            self._open(rest)

    def dropped(self) -> None:
        """A request ended without saying anything about the provider, such as one whose caller has left."""
        self._probing = False

    def _open(self, seconds: float) -> None:
        until = self._clock() + seconds
        self._until = until if self._until is None else max(self._until, until)
