"""What a provider's failure means: whether another attempt may pass, and how long the provider wants to be left alone.

A provider's error may bear `status` (of HTTP), `retry_after` (seconds) and `may_pass`; without them a broken connection
is assumed, which passes. What the request itself has wrong is nobody's failure: it would fail everywhere.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from puna.base.errors import ConfigError, InputError
from puna.stack.errors import ApiError

PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_KEYS = frozenset((401, 402, 403, 404))
_UNFIT = frozenset(("unsupported_parameter", "context_length_exceeded"))  # codes: another provider may take it


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt.

    Attributes:
        kind: "request": wrong everywhere; "unfit": more than this provider takes; "provider": wrong there, such as a
            key; "passing": may pass; "late": silent.
        message: one line.
        retry_after: seconds.
    """

    kind: Literal["request", "unfit", "provider", "passing", "late"]
    message: str
    retry_after: float = 0.0

    @property
    def blames_provider(self) -> bool:
        return self.kind not in ("request", "unfit")

    @property
    def may_pass(self) -> bool:
        """Whether the same provider may be asked again at once; one that was silent for long is not."""
        return self.kind == "passing"


def classify(error: BaseException) -> Failure:
    """What an exception out of a provider's stream means."""
    message = " ".join(str(error).split()) or type(error).__name__
    status = int(getattr(error, "status", 0) or 0)
    rest = max(0.0, float(getattr(error, "retry_after", 0.0) or 0.0))
    if isinstance(error, ApiError):
        rest = rest or _seconds(error.headers.get("Retry-After", ""))
        if error.code in _UNFIT:
            return Failure("unfit", message)
    if isinstance(error, TimeoutError):
        return Failure("late", message, rest)
    if isinstance(error, (InputError, ConfigError)):
        return Failure("request", message)
    if status in PASSING:
        return Failure("passing", message, rest)
    if status in _KEYS:
        return Failure("provider", message)
    if 400 <= status < 500:
        return Failure("request", message)
    # A message that cannot be read will not become readable; a broken connection may be whole again.
    return Failure("passing" if status >= 500 or getattr(error, "may_pass", True) else "provider", message, rest)


def wait(attempt: int, first: float, longest: float, random_: random.Random) -> float:
    """Full jitter: drawn from 0 to a bound that doubles, so that many callers do not come back at once."""
    return random_.uniform(0.0, min(first * 2**attempt, longest))


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
