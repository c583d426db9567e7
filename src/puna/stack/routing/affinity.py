"""Who probably has the beginning of a prompt in its cache: whoever answered a conversation that this one continues.

Kept are hashes of conversations' beginnings, one for each message, never their texts. A provider is believed to have
what it saw for some minutes. Owners are told apart, as caches tell them apart.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from puna.stack.providers.provider import Ask

_ENTRIES = 20_000


class Affinity:
    """Args:
    seconds: how long a cache is believed to last; 0 remembers nothing.
    clock: seconds.
    """

    def __init__(self, seconds: float = 300.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()  # (candidate, hash) -> time, tokens

    def remember(self, candidate: str, ask: Ask, tokens: int) -> None:
        """A candidate has answered: `tokens` is what the prompt came to."""
        if not self.seconds:
            return
        now = self._clock()
        beginnings = _beginnings(ask)
        whole = beginnings[-1][1] if beginnings else 0
        for name, size in beginnings:
            # Of the shorter beginnings nobody has told the tokens: their share of the bytes is near enough.
            self._seen[candidate, name] = now, round(tokens * size / whole) if whole else 0
            self._seen.move_to_end((candidate, name))
        while len(self._seen) > _ENTRIES:
            self._seen.popitem(last=False)

    def cached(self, ask: Ask, candidates: Sequence[str]) -> Mapping[str, int]:
        """For each candidate that has a beginning of the prompt: how many tokens of it."""
        found: dict[str, int] = {}
        if not self.seconds or not self._seen:
            return found
        now = self._clock()
        beginnings = _beginnings(ask)[::-1]
        for candidate in candidates:
            for name, _ in beginnings:
                at, tokens = self._seen.get((candidate, name), (0.0, 0))
                if tokens and now - at < self.seconds:
                    found[candidate] = tokens
                    break
        return found


def _beginnings(ask: Ask) -> list[tuple[str, int]]:
    """The hash of every beginning of the prompt that ends with a message, and its bytes; the longest last."""
    running = hashlib.sha256(json.dumps([ask.owner, [tool.to_json() for tool in ask.tools]], default=str).encode())
    size, found = 0, []
    for message in ask.messages:
        data = json.dumps(message.to_json(), ensure_ascii=False).encode()
        running.update(len(data).to_bytes(8))
        running.update(data)
        size += len(data)
        found.append((running.hexdigest()[:24], size))
    return found
