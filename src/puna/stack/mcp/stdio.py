"""A server of tools that is a program of this machine: lines of JSON on its standard streams.

The program is in a group of its own and ends with its session: first its input is closed, then it is asked, then
killed. What it writes to its error stream goes to this server's. It gets little of the environment: what the settings
give it, and where its user's things are.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from puna.stack.mcp.protocol import McpError, Message, SessionGoneError, is_answer, reply

_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
_PATIENCE = 2.0  # seconds between two ways of ending a program
_GONE = "The server's program has ended."


class StdioTransport:
    """Args:
    command: the program and its arguments.
    environment: that it gets.
    folder: that it is started in; "" for this one.
    max_bytes: of one line.
    """

    ends_with_stream = False

    def __init__(
        self, command: tuple[str, ...], environment: Mapping[str, str], folder: str = "", max_bytes: int = 4 << 20
    ) -> None:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        self._command, self._folder, self._max_bytes = command, folder, max_bytes
        self._environment = {**inherited, **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[Any, asyncio.Future[Message]] = {}

    @property
    def is_alive(self) -> bool:
        return self._reader is not None and not self._reader.done()

    async def request(self, message: Message, headers: Mapping[str, str]) -> Message:
        del headers
        if message["method"] == "initialize":
            await self._start()
        answer = asyncio.get_running_loop().create_future()
        self._waiting[message["id"]] = answer
        try:
            await self._write(message)
            return await answer
        finally:
            self._waiting.pop(message["id"], None)

    async def notify(self, message: Message, headers: Mapping[str, str]) -> None:
        del headers
        await self._write(message)

    async def _start(self) -> None:
        await self._end()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment,
                cwd=self._folder or None,
                limit=self._max_bytes,
                start_new_session=True,
            )
        except OSError as error:
            raise McpError(f"The program {self._command[0]!r} cannot be started: {error.strerror}.") from error
        self._reader = asyncio.ensure_future(self._listen(self._process))

    async def _write(self, message: Message) -> None:
        if self._process is None or self._process.stdin is None or not self.is_alive:
            raise SessionGoneError(_GONE)
        try:
            self._process.stdin.write(json.dumps(message, ensure_ascii=False).encode() + b"\n")
            await self._process.stdin.drain()
        except (OSError, RuntimeError) as error:
            raise McpError(_GONE) from error

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        reason = _GONE
        try:
            while line := await process.stdout.readline():
                await self._heard(line)
        except ValueError:
            reason = f"The server's answer is longer than {self._max_bytes:,} bytes."
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(McpError(reason))

    async def _heard(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # programs print; the next line may be a message again
        if is_answer(message):
            answer = self._waiting.get(message["id"])
            if answer is not None and not answer.done():
                answer.set_result(message)
        elif isinstance(message, Mapping) and (told := reply(message)):
            with suppress(McpError):
                await self._write(told)

    async def forget(self) -> None:
        await self._end()

    async def close(self) -> None:
        await self._end()

    async def _end(self) -> None:
        process, reader = self._process, self._reader
        self._process = self._reader = None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            for sent in (signal.SIGTERM, signal.SIGKILL):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE):
                        await process.wait()
                # The group too: a program that was started by a script outlives it.
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, sent)
            await process.wait()
        if reader is not None:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
