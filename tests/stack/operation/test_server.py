"""Start and stop: what is refused before anything is loaded, and a real socket that drains."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from puna.base.errors import ConfigError, StorageError
from puna.stack.config import ServerConfig, StackConfig
from puna.stack.operation import keys, server
from puna.stack.state.sqlite import SqliteStore
from puna.stack.testing import ScriptedProvider

SERVER = """
import logging, sys
from pathlib import Path
from puna.stack.config import ServerConfig, StackConfig
from puna.stack.operation import server
from puna.stack.testing import ScriptedProvider

config = StackConfig(server=ServerConfig(port=0, drain_seconds=5))
listening = server.listen(config.server)
stack, app = server.build(config, Path(sys.argv[1]), {"p": ScriptedProvider("p", pause=0.05)})
server.serve(app, config.server, listening, lambda address: print(address, flush=True))
"""


def test_a_bind_that_others_can_reach_needs_a_key(tmp_path: Path) -> None:
    config = StackConfig(server=ServerConfig(host="0.0.0.0"))
    with pytest.raises(ConfigError, match=r"listen on 0\.0\.0\.0") as caught:
        server.build(config, tmp_path)
    assert "puna keys create" in caught.value.hint
    keys.create(SqliteStore(tmp_path / "stack.db"), "ana")
    server.build(config, tmp_path)
    with pytest.raises(ConfigError, match="without a key"):
        server.build(StackConfig(server=ServerConfig(host="0.0.0.0", require_keys=False)), tmp_path)


def test_small_pieces_are_sent_at_once() -> None:
    async def go() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with server.listen(ServerConfig(port=0)) as listening:
            async with await asyncio.start_server(met, sock=listening):
                _, writer = await asyncio.open_connection(*listening.getsockname())
                nodelay = await found
                writer.close()
                return nodelay

    assert asyncio.run(go())


def test_keys_are_asked_for_where_there_are_any(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "stack.db")
    assert not server.needs_keys(ServerConfig(), store)
    assert server.needs_keys(ServerConfig(require_keys=True), store)
    keys.create(store, "ana")
    assert server.needs_keys(ServerConfig(), store)
    assert not server.needs_keys(ServerConfig(require_keys=False), store)


def test_the_key_of_the_settings_opens_an_address_to_others(tmp_path: Path) -> None:
    key = "puna-ops-" + "7" * 32
    config = ServerConfig(host="0.0.0.0", key=key)
    assert key not in repr(config)
    stack, _ = server.build(StackConfig(server=config), tmp_path)
    assert keys.verify(stack.store, key).owner == "ops"
    with pytest.raises(ConfigError, match="without a key"):  # it was taken out of the settings, and no other is left
        server.build(StackConfig(server=ServerConfig(host="0.0.0.0")), tmp_path)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StorageError, match=f"127.0.0.1:{port}"):
            server.listen(ServerConfig(port=port))


def test_unknown_provider_types_and_double_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no provider type 'inline::nothing'"):
        server.build(StackConfig(providers={"a": {"type": "inline::nothing"}}), tmp_path)
    with pytest.raises(ConfigError, match="Two providers are called 'p'"):
        server.build(StackConfig(providers={"p": {"type": "x"}}), tmp_path, {"p": ScriptedProvider("p")})


def test_a_server_answers_counts_and_stops_when_it_is_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert httpx.get(f"{address}/openapi.json").status_code == 200
        text = httpx.get(f"{address}/metrics").text
        assert 'route="/openapi.json"' in text
        process.send_signal(signal.SIGHUP)  # no certificate to renew, and no reason to end
        assert httpx.get(f"{address}/v1/version").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert len(list(tmp_path.glob("stack.db*"))) == 1  # it was closed: the log of writes is merged into it
