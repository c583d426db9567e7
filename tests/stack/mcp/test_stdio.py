"""Programs as servers of tools."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from puna.stack.mcp.protocol import McpError
from puna.stack.mcp.session import Session
from puna.stack.mcp.stdio import StdioTransport

# Says what its first argument is, and then nothing more.
MUTE = "import sys; sys.stdin.readline(); sys.stdout.write(sys.argv[1] + '\\n'); sys.stdout.flush(); sys.stdin.read()"


def test_a_real_program(farm_program: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNA_SECRET", "sesame")

    async def go() -> None:
        transport = StdioTransport(farm_program, {"HERD": "alpha"})
        session = Session(transport, 30)
        tools = await session.list_tools()
        assert "count" in {tool.name for tool in tools}
        counts = await asyncio.gather(*(session.call("count", {"herd": "x" * n}) for n in range(5)))
        assert [result.text for result in counts] == ["0", "1", "2", "3", "4"]
        names = (await session.call("environment", {})).structured["result"]
        assert "HERD" in names
        assert "PUNA_SECRET" not in names
        session.seconds = 0.3
        with pytest.raises(McpError, match="did not answer"):
            await session.call("wait", {})
        session.seconds = 30
        assert (await session.call("count", {"herd": "still"})).text == "5"
        process = transport._process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        while transport.is_alive:
            await asyncio.sleep(0.01)
        assert (await session.call("count", {"herd": "anew"})).text == "4"
        await session.close()
        assert not transport.is_alive

    asyncio.run(go())


def ask(*command: str, folder: str = "", limit: int = 1000) -> None:
    async def go() -> None:
        session = Session(StdioTransport(command, {}, folder, limit), 5)
        try:
            await session.start()
        finally:
            await session.close()

    asyncio.run(go())


def test_programs_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(McpError, match=r"'/no/such/program' cannot be started: No such file"):
        ask("/no/such/program")
    with pytest.raises(McpError, match="has ended"):
        ask(sys.executable, "-c", "print('hello')")
    with pytest.raises(McpError, match="longer than 1,000 bytes"):
        ask(sys.executable, "-c", MUTE, "x" * 5000)
    with pytest.raises(McpError, match="cannot be started"):
        ask(sys.executable, folder=str(tmp_path / "missing"))


def test_a_program_that_does_not_want_to_end_is_ended(tmp_path: Path) -> None:
    stubborn = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    noted = tmp_path / "pid"

    async def go() -> None:
        session = Session(StdioTransport((sys.executable, "-c", stubborn, str(noted)), {}), 1)
        with pytest.raises(McpError, match="did not answer"):
            await session.start()
        while not noted.exists() or not noted.read_text():
            await asyncio.sleep(0.01)
        await session.close()

    asyncio.run(go())
    with pytest.raises(ProcessLookupError):
        os.kill(int(noted.read_text()), 0)
