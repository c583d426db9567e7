"""Stop strings over a stream of text: the text ends before the first of them, wherever the tokens' borders fall.

The first is the one that is complete first, the longest where several are: so how the text is cut changes nothing, and
no stop string waits for another one.
"""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on, holding back what may be the beginning of a stop string.

    Attributes:
        text: all that has been passed on.
        found: whether a stop string has appeared; nothing is passed on after it.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = [string for string in strings if string]
        self.text = ""
        self.found = False
        self._held = ""

    def feed(self, text: str) -> str:
        """Takes more text; returns what is now certain to come before any stop string."""
        if self.found:
            return ""
        self._held += text
        found = [(at + len(string), at) for string in self.strings if (at := self._held.find(string)) >= 0]
        if found:
            self.found = True
            _, start = min(found)
            return self._pass(start)
        return self._pass(len(self._held) - self._possible_start())

    def flush(self) -> str:
        """The end of the stream: what was held back is text after all."""
        return "" if self.found else self._pass(len(self._held))

    def _pass(self, count: int) -> str:
        passed, self._held = self._held[:count], self._held[count:]
        self.text += passed
        return passed

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = max((len(string) for string in self.strings), default=1) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(string.startswith(self._held[-size:]) for string in self.strings):
                return size
        return 0
