"""How much a key may ask: a bucket of requests and one of tokens, which fill up evenly over a minute.

The buckets are this process's own. A request pays for its tokens when it has ended, since nobody knows before; a key
that has overdrawn waits until its bucket is above zero again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from puna.stack.errors import ApiError

_MINUTE = 60.0


@dataclass(slots=True)
class Bucket:
    """Holds at most a minute's worth.

    Attributes:
        per_minute: how fast it fills.
        level: what is in it; below zero where more was taken.
        at: when that was so, in seconds of the clock.
    """

    per_minute: float
    level: float
    at: float

    def fill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / _MINUTE)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until so much is in it."""
        return max(0.0, (amount - self.level) * _MINUTE / self.per_minute)


class Limits:
    """The buckets of all keys.

    Args:
        requests: a minute, of one key; 0 for no limit.
        tokens: likewise.
        clock: seconds.
    """

    def __init__(self, requests: int = 0, tokens: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = {"requests": requests, "tokens": tokens}
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def admit(self, who: str) -> dict[str, str]:
        """Takes one request out of a key's bucket; gives the headers that tell what is left.

        Raises:
            ApiError: 429, with the seconds to wait.
        """
        headers: dict[str, str] = {}
        for what, needed in (("tokens", 1e-9), ("requests", 1.0)):
            limit = self.per_minute[what]
            if not limit:
                continue
            bucket = self._bucket(who, what)
            if bucket.level < needed:
                wait = bucket.wait(needed)
                raise ApiError(
                    429,
                    f"The limit is {limit:,} {what} a minute; wait {wait:.1f} seconds.",
                    code="rate_limit_exceeded",
                    headers={"Retry-After": str(max(1, round(wait + 0.5))), f"x-ratelimit-limit-{what}": str(limit)},
                )
            if what == "requests":
                bucket.level -= 1.0
            headers |= {f"x-ratelimit-limit-{what}": str(limit),
                        f"x-ratelimit-remaining-{what}": str(max(0, int(bucket.level)))}  # fmt: skip
        return headers

    def spend(self, who: str, tokens: int) -> None:
        """Takes the tokens of a request that has ended."""
        if self.per_minute["tokens"]:
            self._bucket(who, "tokens").level -= tokens

    def _bucket(self, who: str, what: str) -> Bucket:
        now, limit = self._clock(), self.per_minute[what]
        bucket = self._buckets.get((who, what))
        if bucket is None:
            if len(self._buckets) > 10_000:  # keys that come and go do not pile up
                self._buckets = {k: b for k, b in self._buckets.items() if b.level < b.per_minute}
            bucket = self._buckets[who, what] = Bucket(limit, limit, now)
        bucket.fill(now)
        return bucket
