"""The transport against servers that answer byte by byte, break off, keep connections or end them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from puna.stack.providers.transport import Transport, transport_for

CHUNKED = b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nx: y\r\n\r\n"
WHOLE = CHUNKED + b"5\r\nhello\r\n6;note=1\r\n world\r\n0\r\nTrailer: z\r\n\r\n"


class Server:
    """Answers every request with the next of the given bytes; None hangs up.

    Attributes:
        heads: of the requests.
        connections: how many there were.
        left: set when a client has closed its connection.
    """

    def __init__(self, *answers: bytes | None, step: int = 1 << 20) -> None:
        self.answers, self.step = list(answers), step
        self.heads: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                answer = self.answers.pop(0)
                if answer is None:
                    return
                for at in range(0, len(answer), self.step):
                    writer.write(answer[at : at + self.step])
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


def play(server: Callable[[], Server], work: Callable[[httpx.AsyncClient, Server], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        found = server()
        async with await asyncio.start_server(found.talk, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            client = httpx.AsyncClient(transport=Transport(), base_url=f"http://127.0.0.1:{port}", timeout=5)
            async with client:
                return await work(client, found)

    return asyncio.run(asyncio.wait_for(go(), 20))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_an_answer_in_chunks_is_the_same_however_it_is_cut(step: int) -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        for _ in range(2):
            answer = await client.get("/a?b=c")
            assert (answer.status_code, answer.reason_phrase, answer.text) == (200, "Fine", "hello world")
            assert answer.headers["x"] == "y"
        assert server.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1")
        assert server.connections == 1

    play(lambda: Server(WHOLE, WHOLE, step=step), work)


def test_bodies_have_a_length_or_end_with_the_connection() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        assert (await client.post("/", content=b"x")).content == b"abc"
        assert (await client.head("/")).content == b""
        assert (await client.get("/")).status_code == 204
        assert server.connections == 1
        assert (await client.get("/")).content == b"old"
        assert (await client.get("/")).content == b"abc"
        assert server.connections == 2

    length = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    old = b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nold"
    play(lambda: Server(length + b"abc", length, b"HTTP/1.1 204 No\r\n\r\n", old, length + b"abc"), work)


def test_what_only_says_that_an_answer_will_come_is_passed_over() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        assert (await client.get("/")).text == "hello world"

    play(lambda: Server(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE), work)


def test_a_connection_that_the_server_ended_is_not_used_again() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        assert (await client.get("/")).text == "hello world"
        assert (await client.get("/")).text == "hello world"
        assert server.connections == 2

    play(lambda: Server(WHOLE.replace(b"x: y", b"Connection: close"), WHOLE), work)


def test_one_that_says_goodbye_unasked_is_not_used_again() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        assert (await client.get("/")).text == "hello world"
        await asyncio.sleep(0.05)
        assert (await client.get("/")).text == "hello world"
        assert server.connections == 2

    goodbye = b"HTTP/1.1 408 Timeout\r\ncontent-length: 0\r\n\r\n"
    play(lambda: Server(WHOLE + goodbye, WHOLE), work)


def test_an_answer_that_is_left_closes_its_connection() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        async with client.stream("GET", "/") as answer:
            async for piece in answer.aiter_bytes():
                assert piece == b"hello"
                break
        await asyncio.wait_for(server.left.wait(), 5)

    play(lambda: Server(CHUNKED + b"5\r\nhello\r\n"), work)


def test_a_silent_server_is_given_up() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await client.get("/", timeout=0.05)
        await asyncio.wait_for(server.left.wait(), 5)

    play(lambda: Server(b""), work)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "without an answer"),
        (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "not a header"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "length"),
        (CHUNKED + b"-5\r\nhello\r\n", "size"),
        (CHUNKED + b"1_0\r\nhello\r\n", "size"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "more than"),
        (CHUNKED + b"0\r\nx: " + b"y" * 100_000, "more than"),
    ],
)
def test_what_is_no_answer_is_an_error_of_the_protocol(answer: bytes | None, said: str) -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        with pytest.raises(httpx.RemoteProtocolError, match=said):
            await client.get("/")

    play(lambda: Server(answer), work)


def test_an_answer_that_breaks_off_is_an_error() -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        async with client.stream("GET", "/") as answer:
            with pytest.raises(httpx.TransportError):
                await asyncio.wait_for(answer.aread(), 5)

    class Ending(Server):
        async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(CHUNKED + b"5\r\nhel")
            self.left.set()
            writer.close()

    play(Ending, work)


def test_nobody_there_is_named() -> None:
    async def go() -> None:
        async with httpx.AsyncClient(transport=Transport()) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("http://127.0.0.1:9/")

    asyncio.run(go())


def test_a_proxy_of_the_environment_is_left_to_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "near.example")
    assert transport_for(httpx.URL("https://far.example/v1")) is None
    assert isinstance(transport_for(httpx.URL("https://near.example/v1")), Transport)
    assert isinstance(transport_for(httpx.URL("http://127.0.0.1:1/v1")), Transport)


@pytest.mark.parametrize("value", ["a\r\nx-admin: 1", "a\nb", "a\0b"])
def test_a_key_cannot_bring_headers_of_its_own(value: str) -> None:
    async def work(client: httpx.AsyncClient, server: Server) -> None:
        with pytest.raises(httpx.LocalProtocolError, match="end of line"):
            await client.get("/", headers={"authorization": f"Bearer {value}"})
        assert (server.connections, server.heads) == (0, [])

    play(lambda: Server(), work)
