"""Server-sent events as they come in (WHATWG HTML, section 9.2): for every client of a server that streams.

Reading is left to the caller, who feeds bytes cut anywhere. Bytes and not text: Unicode knows other ends of lines,
which may stand within a line of JSON. The names of events are left out; all that is read here says in its data what it
is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Attributes:
        data: its lines joined; b"" where it only sets the id or the wait.
        id: to resume after; "" for none.
        retry: seconds to wait before that; None where the server does not say.
    """

    data: bytes = b""
    id: str = ""
    retry: float | None = None


class ServerEvents:
    """The events of one stream."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._id, self._retry, self._held = "", None, 0

    @property
    def held(self) -> int:
        """Bytes of the event that is not whole yet."""
        return self._held + len(self._rest)

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that are whole with this chunk."""
        # A "\r" at the end of a chunk may be half of an end of line.
        whole = self._rest + chunk
        half = b"\r" if whole.endswith(b"\r") else b""
        *lines, rest = _LINE.split(whole.removesuffix(half))
        self._rest = rest + half
        return [event for line in lines if (event := self._line(line)) is not None]

    def end(self) -> ServerEvent | None:
        """The event within which the stream has ended: the standard drops it, and some servers end with it."""
        self._line(self._rest.removesuffix(b"\r"))
        self._rest = b""
        return self._line(b"")

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            if not (self._data or self._id or self._retry is not None):
                return None
            event = ServerEvent(b"\n".join(self._data), self._id, self._retry)
            self._data, self._id, self._retry, self._held = [], "", None, 0
            return event
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode(errors="replace")
        elif name == b"retry" and value.isdigit():
            self._retry = int(value) / 1000
        self._held += len(line)
        return None
