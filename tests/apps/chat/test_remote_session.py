"""Terminal sessions that a server keeps: against the scripted server, which answers as the API's documents say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puna.apps.chat.remote_session import RemoteSession, Server, newest_branch, open_session
from puna.base.errors import InputError, RemoteError
from puna.core.completion import SamplingParams


class Opening:
    """Opens sessions and servers, and closes them at the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.servers: list[Server] = []

    def server(self, url: str = "", key: str = "") -> Server:
        self.servers.append(Server(url or self.url, key))
        return self.servers[-1]

    def __call__(self, **options: Any) -> RemoteSession:
        return open_session(self.server(), **options)


@pytest.fixture
def opened(server: Any) -> Iterator[Opening]:
    opening = Opening(server.url)
    yield opening
    for one in opening.servers:
        one.close()


def said(session: RemoteSession, text: str) -> str:
    return "".join(session.ask(text))


def kept(server: Any, id: str = "conv_0") -> list[tuple[str, str]]:
    return [(item["role"], item["content"][0]["text"]) for item in server.items[id]]


def test_what_is_said_stands_on_the_server(server: Any, opened: Opening):
    session = opened()
    assert said(session, "Hello there") == "You said: Hello there"
    assert said(session, "More") == "You said: More"
    assert kept(server)[2:] == [("user", "More"), ("assistant", "You said: More")]
    metadata = server.conversations["conv_0"]["metadata"]
    assert (metadata["puna"], metadata["title"]) == ("chat", "Hello there")
    shown = [message["content"] for message in server.asked[1]["messages"]]
    assert shown == ["Hello there", "You said: Hello there", "More"]


def test_the_last_conversation_is_taken_up_with_its_settings(server: Any, opened: Opening):
    first = opened(params=SamplingParams(temperature=0.25, max_tokens=50), model="local/llama")
    first.set_system("Be kind. " * 100)
    said(first, "One")
    again = opened(conversation="last")
    assert [message.content for message in again.messages] == ["Be kind. " * 100, "One", "You said: One"]
    assert (again.params.temperature, again.params.max_tokens, again.model_name) == (0.25, 50, "local/llama")
    said(again, "Two")
    assert len(server.conversations) == 1
    assert [text for _, text in kept(server)] == ["One", "You said: One", "Two", "You said: Two"]


def test_another_answer_is_a_branch_of_the_same_conversation(server: Any, opened: Opening):
    session = opened()
    said(session, "One")
    server.answers = ["another", "third", "next"]
    assert "".join(session.retry()) == "another"
    assert "".join(session.retry()) == "third"
    said(session, "Two")
    assert server.conversations["conv_0"]["metadata"]["tree0"] == "2:0,3:0"
    again = opened(conversation="conv_0")
    assert [message.content for message in again.messages] == ["One", "third", "Two", "next"]
    server.answers = ["after"]
    assert "".join(again.retry()) == "after"
    assert server.conversations["conv_0"]["metadata"]["tree0"] == "2:0,3:0,6:4"


def test_what_the_page_added_meanwhile_becomes_another_branch(server: Any, opened: Opening):
    session = opened()
    said(session, "One")
    other = opened(conversation="last")
    said(other, "From the page")
    said(session, "Two")
    assert server.conversations["conv_0"]["metadata"]["tree0"] == "4:1"
    again = opened(conversation="last")
    assert [message.content for message in again.messages] == ["One", "You said: One", "Two", "You said: Two"]


def test_a_loaded_conversation_can_be_answered_again(server: Any, opened: Opening, tmp_path: Path):
    session = opened()
    said(session, "One")
    session.save(tmp_path / "a.json")
    session.load(tmp_path / "a.json")
    server.answers = ["another"]
    "".join(session.retry())
    assert [text for _, text in kept(server, "conv_1")] == ["One", "another"]


def test_an_answer_that_is_left_half_way_is_not_kept(server: Any, opened: Opening):
    session = opened()
    pieces = session.ask("One")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert server.conversations == {}
    assert session.messages == []


def test_clearing_begins_a_new_conversation_and_a_loaded_one_is_kept_whole(
    server: Any, opened: Opening, tmp_path: Path
):
    session = opened()
    said(session, "One")
    session.save(tmp_path / "a.json")
    session.clear()
    said(session, "Two")
    session.load(tmp_path / "a.json")
    said(session, "Three")
    assert [text for _, text in kept(server, "conv_1")] == ["Two", "You said: Two"]
    assert [text for _, text in kept(server, "conv_2")] == ["One", "You said: One", "Three", "You said: Three"]


def test_the_servers_documents_are_quoted_and_the_citation_is_kept(server: Any, opened: Opening):
    cited = {"source": "puna.txt", "start": 25, "end": 44, "text": "A llama eats grass.", "heading": "Food"}
    server.reader = {"What?": {"text": "A llama eats grass.", "citations": [cited], "confidence": 0.5}}
    session = opened()
    assert said(session, "What?") == "A llama eats grass."
    assert session.shown[0].source == "puna.txt"
    assert server.asked == []
    (note,) = server.items["conv_0"][1]["content"][0]["annotations"]
    assert {name: note[name] for name in cited} == cited
    assert kept(server)[0] == ("user", "What?")
    assert said(session, "Unknown?") == "The text does not say."


def test_calls_of_tools_are_taken_up(server: Any, opened: Opening):
    server.conversations["conv_9"] = {"id": "conv_9", "metadata": {}, "created_at": 1}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x": 1}'}
    result = {"type": "function_call_output", "call_id": "c", "output": "2"}
    texts = [{"type": "message", "role": role, "content": role} for role in ("user", "assistant")]
    server.items["conv_9"] = [{"id": str(i), **item} for i, item in enumerate([*texts, call, result])]
    messages = opened(conversation="conv_9").messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert (messages[1].content, messages[1].tool_calls[0].arguments) == ("assistant", {"x": 1})


@pytest.mark.parametrize(
    ("count", "branches", "path"),
    [(0, "", []), (3, "", [0, 1, 2]), (4, "2:0", [0, 2, 3]), (4, "2:-", [2, 3]), (3, "2:2", [2]), (3, "2:9", [2])],
)
def test_the_newest_branch(count: int, branches: str, path: list[int]):
    assert newest_branch(count, branches) == path


def test_what_is_not_there_is_named(server: Any, opened: Opening):
    with pytest.raises(InputError, match="no model 'x'") as caught:
        opened(model="x")
    assert "local/cria" in caught.value.hint
    with pytest.raises(InputError, match="no conversation"):
        opened(conversation="last")
    with pytest.raises(RemoteError, match="404"):
        opened(conversation="conv_7")
    with pytest.raises(RemoteError, match="cannot be reached"):
        open_session(opened.server("http://127.0.0.1:9"))


def test_the_key_is_sent(server: Any, opened: Opening):
    assert opened.server(f"{server.url}/v1/", key="puna-x")._client.headers["authorization"] == "Bearer puna-x"
    assert opened.server(f"{server.url}/v1/").url == server.url
