"""Server-sent events as they come in (WHATWG HTML, section 9.2), with the ids that resume a broken stream."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass

from puna.stack.mcp.protocol import McpError

# Bytes and not text: other ends of lines that Unicode knows may stand within a line of JSON.
_LINE = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """Attributes:
    data: of the event; "" where it only sets the id or the wait.
    id: to resume after; "" for none.
    retry: seconds to wait before that; None where the server does not say.
    """

    data: str = ""
    id: str = ""
    retry: float | None = None


async def server_events(chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncGenerator[ServerEvent, None]:
    """The events of a stream.

    Raises:
        McpError: one is longer than `max_bytes`.
    """
    data: list[bytes] = []
    id, retry, held, rest = "", None, 0, b""
    async for chunk in chunks:
        # A "\r" at the end of a chunk may be half of an end of line.
        whole = rest + chunk
        *lines, rest = _LINE.split(whole[:-1] if whole.endswith(b"\r") else whole)
        rest += b"\r" if whole.endswith(b"\r") else b""
        for line in lines:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"id" and b"\0" not in value:
                id = value.decode(errors="replace")
            elif name == b"retry" and value.isdigit():
                retry = int(value) / 1000
            elif not line and (data or id or retry is not None):
                yield ServerEvent(b"\n".join(data).decode(errors="replace"), id, retry)
                data, id, retry, held = [], "", None, 0
            held += len(line)
        if held + len(rest) > max_bytes:
            raise McpError(f"The server's answer is longer than {max_bytes:,} bytes.")
