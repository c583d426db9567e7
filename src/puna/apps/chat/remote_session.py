"""`puna chat --server URL`: the chat page's sessions in a terminal.

A session is a conversation of the server's API. It is found by its id, or as the one that was used last, and what is
said here stands on the page as well. Branches that the page made are kept: a list of items only grows, and `tree0`,
`tree1`, ... in the metadata say which item does not follow the one before it ("5:1": item 5 stands below item 1). Only
the newest branch is shown here.

Left out: attachments, and side by side; the page has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote

import httpx

from puna.apps.chat.session import ChatSession
from puna.base.errors import InputError, RemoteError
from puna.core.chat import Message, ToolCall
from puna.core.completion import SamplingParams
from puna.core.document import Span
from puna.engine.remote import RemoteConfig, RemoteModel
from puna.knowledge.chunk import Passage
from puna.reader.reading import CitedAnswer

Item = Mapping[str, Any]
_VALUE = 512  # characters that a value of metadata may have
_SETTINGS = ("temperature", "top_p", "top_k", "min_p", "max_tokens", "seed")  # that the page has as well
_ABSENT = (404, 405, 501)
_AT_ONCE = 20  # items that the API takes in one request


class Server:
    """The API of a server.

    Args:
        url: where it is, with or without "/v1".
        key: the API key, "" for none.
        transport: in place of the network's; for tests.
    """

    def __init__(self, url: str, key: str = "", transport: httpx.BaseTransport | None = None) -> None:
        self.url, self.key = url.rstrip("/").removesuffix("/v1"), key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        near = httpx.URL(self.url).host in ("localhost", "127.0.0.1", "::1")  # which no proxy reaches
        self._models: list[RemoteModel] = []
        self._client = httpx.Client(
            base_url=self.url, headers=headers, timeout=120.0, transport=transport, trust_env=not near
        )

    def send(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
        """The JSON of an answer; None where `absent` and the server has no such thing.

        Raises:
            RemoteError: it cannot be reached, or refuses.
        """
        try:
            response = self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            hint = "Start it with `puna serve`, or check the url."
            raise RemoteError(f"{self.url} cannot be reached ({type(error).__name__}).", hint=hint) from error
        if absent and response.status_code in _ABSENT:
            return None
        try:
            data = response.json()
        except ValueError as error:
            raise RemoteError(f"{self.url}{path} answered {response.status_code}, and no JSON.") from error
        if response.is_error:
            said = data.get("error") if isinstance(data, dict) else None
            message = said.get("message") if isinstance(said, dict) else response.reason_phrase
            raise RemoteError(f"{self.url} answered {response.status_code}: {message}")
        return data

    def models(self) -> list[str]:
        """Ids of the models that talk."""
        found = self.send("GET", "/v1/models")["data"]
        return [one["id"] for one in found if (one.get("custom_metadata") or {}).get("model_type", "llm") == "llm"]

    def conversations(self) -> list[Mapping[str, Any]]:
        """Those of the chat, the last used first.

        Raises:
            RemoteError: the server has no list of them.
        """
        page = self.send("GET", "/v1/conversations?limit=100", absent=True)
        if page is None:
            raise RemoteError(f"{self.url} does not list its conversations.", hint="Name one by its id.")
        mine = [one for one in page["data"] if (one.get("metadata") or {}).get("puna") == "chat"]
        return sorted(mine, key=lambda one: float(one["metadata"].get("updated") or 0), reverse=True)

    def items(self, conversation: str) -> list[Item]:
        """All items of a conversation, in order."""
        found: list[Item] = []
        after = ""
        while True:
            page = self.send("GET", f"/v1/conversations/{conversation}/items?order=asc&limit=100{after}")
            found += page["data"]
            if not page.get("has_more") or not page["data"]:
                return found
            after = f"&after={quote(page['data'][-1]['id'])}"

    def model(self, name: str) -> RemoteModel:
        """A model of the server's, which is closed with it."""
        self._models.append(RemoteModel(RemoteConfig(f"{self.url}/v1", name, api_key_env="PUNA_API_KEY"), self.key))
        return self._models[-1]

    def close(self) -> None:
        for one in (*self._models, self._client):
            one.close()


class RemoteReader:
    """Cited answers from the server's documents, where it has some."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer:
        turns = [{"role": turn.role, "content": turn.content} for turn in history if turn.role in ("user", "assistant")]
        body = {"question": question, "history": turns}
        data = self.server.send("POST", "/v1alpha/reader/answer", body, absent=True)
        if data is None:
            return CitedAnswer("", trace={"question": question, "passages": []})
        cited = data.get("citations") or []
        spans = tuple(Span(one["source"], one["start"], one["end"]) for one in cited)
        passages = tuple(
            Passage(one["source"], one["source"], one["start"], one["end"], one.get("heading") or "", one["text"])
            for one in cited
        )
        trace = {"question": question, "passages": [one["source"] for one in cited] or ["none"]}
        return CitedAnswer(data["text"], spans, passages, float(data.get("confidence") or 0.0), trace)


@dataclass(slots=True)
class RemoteSession(ChatSession):
    """A chat session that the server keeps.

    Attributes:
        server: where.
        model_name: the model's id there.
        conversation: its id there; "" until something was answered.
        branches: which items do not follow the one before them, as in the metadata.
        count: how many items the conversation has.
        title: its name.
        asked: the place of the last question among the items; -1 where it is not known.
    """

    server: Server | None = None
    model_name: str = ""
    conversation: str = ""
    branches: str = ""
    count: int = 0
    title: str = ""
    asked: int = -1

    def ask(self, text: str) -> Iterator[str]:
        yield from ChatSession.ask(self, text)
        self._keep([_user(text), self._answered()])
        self.asked = self.count - 2

    def retry(self) -> Iterator[str]:
        yield from ChatSession.retry(self)
        self._keep([self._answered()], self.asked)

    def clear(self) -> None:
        ChatSession.clear(self)
        self._forget()

    def load(self, path: Any) -> None:
        ChatSession.load(self, path)
        self._forget()

    def _forget(self) -> None:
        """What comes next is a new conversation."""
        self.conversation, self.branches, self.count, self.title, self.asked = "", "", 0, "", -1

    def _answered(self) -> Item:
        text = self.messages[-1].content
        notes = [_annotation(text, passage) for passage in self.shown] if self.cited else []
        return _message("assistant", [{"type": "output_text", "text": text, "annotations": notes}])

    def _keep(self, items: Sequence[Item], above: int | None = None) -> None:
        """Sends new items, all that there are for a new conversation.

        Args:
            items: what was said now.
            above: the place of the item that they follow; None for the last that is known here.
        """
        assert self.server is not None
        if self.conversation:
            self._place(self.count - 1 if above is None else above)
        else:
            before = self.messages[: -len(items)]
            items = [*(item for message in before for item in _items(message)), *items]
            self.title = self.title or next((_text(item) for item in items if item.get("role") == "user"), "")[:60]
            data = self.server.send("POST", "/v1/conversations", {"metadata": self._metadata()})
            self.conversation = data["id"]
        for start in range(0, len(items), _AT_ONCE):
            body = {"items": list(items[start : start + _AT_ONCE])}
            self.server.send("POST", f"/v1/conversations/{self.conversation}/items", body)
        self.count += len(items)
        self.server.send("POST", f"/v1/conversations/{self.conversation}", {"metadata": self._metadata()})

    def _place(self, above: int) -> None:
        """Notes what the next item follows, where that is not the last one: the page may have gone on meanwhile."""
        assert self.server is not None
        there = len(self.server.items(self.conversation))
        if there > self.count:
            about = self.server.send("GET", f"/v1/conversations/{self.conversation}")
            self.branches, self.count = _gathered("tree", about.get("metadata") or {}), there
        if above != self.count - 1:
            pair = f"{self.count}:{above if above >= 0 else '-'}"
            self.branches = f"{self.branches},{pair}" if self.branches else pair

    def _metadata(self) -> dict[str, str]:
        settings: dict[str, Any] = {"model": self.model_name} if self.model_name else {}
        settings |= {name: value for name in _SETTINGS if (value := getattr(self.params, name)) is not None}
        data = {"puna": "chat", "title": self.title, "updated": str(int(time.time() * 1000))}
        data["settings"] = json.dumps(settings)
        system = next((message.content for message in self.messages if message.role == "system"), "")
        return data | _spread("system", system) | _spread("tree", self.branches)


def open_session(
    server: Server, model: str = "", conversation: str = "", params: SamplingParams | None = None
) -> RemoteSession:
    """A new session, or one that the server keeps: by its id, or the last used one for "last".

    Raises:
        RemoteError: the server cannot be reached or refuses.
        InputError: there is no such model or conversation.
    """
    names = server.models()
    about: Mapping[str, Any] = {}
    if conversation == "last":
        known = server.conversations()
        if not known:
            raise InputError("There is no conversation on the server yet.", hint="Start one by leaving the option out.")
        about = known[0]
    elif conversation:
        about = server.send("GET", f"/v1/conversations/{quote(conversation, safe='')}")
    metadata = about.get("metadata") or {}
    settings = _settings(metadata)
    model = model or (settings.get("model") if settings.get("model") in names else "") or (names[0] if names else "")
    if not model or model not in names:
        raise InputError(f"The server has no model {model!r}.", hint=f"It has: {', '.join(names) or 'none'}.")
    kept = {name: settings[name] for name in _SETTINGS if settings.get(name) is not None}
    session = RemoteSession(
        server.model(model),
        params or SamplingParams(**kept),
        reader=RemoteReader(server),
        server=server,
        model_name=model,
    )
    if about:
        _take_up(session, about["id"], metadata, server.items(about["id"]))
    return session


def _take_up(session: RemoteSession, id: str, metadata: Mapping[str, str], items: Sequence[Item]) -> None:
    session.conversation, session.count, session.title = id, len(items), metadata.get("title", "")
    session.branches = _gathered("tree", metadata)
    path = newest_branch(len(items), session.branches)
    system = _gathered("system", metadata)
    messages = [Message("system", system)] if system else []
    session.messages = _joined([*messages, *(message for place in path if (message := _read(items[place])))])
    questions = [place for place in path if items[place].get("role") == "user"]
    session.asked = questions[-1] if questions else -1


def newest_branch(count: int, branches: str) -> list[int]:
    """Places of the items from the first to the last, by way of those above it."""
    above = {int(child): parent for child, _, parent in (pair.partition(":") for pair in branches.split(",") if pair)}
    path: list[int] = []
    place = count - 1
    while 0 <= place < count and place not in path:
        path.append(place)
        parent = above.get(place, str(place - 1))
        place = int(parent) if parent != "-" else -1
    return path[::-1]


def _settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get("settings") or "{}")
    except ValueError:
        return {}
    known = {field.name for field in fields(SamplingParams)} | {"model"}
    return {name: value for name, value in found.items() if name in known} if isinstance(found, dict) else {}


def _spread(name: str, text: str) -> dict[str, str]:
    """A text that may be longer than one value of metadata, in several."""
    return {f"{name}{i}": text[start : start + _VALUE] for i, start in enumerate(range(0, len(text), _VALUE))}


def _gathered(name: str, metadata: Mapping[str, str]) -> str:
    text, i = "", 0
    while piece := metadata.get(f"{name}{i}"):
        text, i = text + piece, i + 1
    return text


def _message(role: str, content: list[dict[str, Any]]) -> Item:
    return {"type": "message", "role": role, "content": content}


def _user(text: str) -> Item:
    return _message("user", [{"type": "input_text", "text": text}])


def _annotation(text: str, passage: Passage) -> dict[str, Any]:
    """A citation as the page keeps it: OpenAI's fields, and beside them the place in the document."""
    url = f"/v1alpha/reader/document?source={quote(passage.source)}"
    note = {"type": "url_citation", "url": url, "title": passage.heading or passage.source}
    place = {"source": passage.source, "start": passage.start, "end": passage.end, "heading": passage.heading}
    return {**note, "start_index": 0, "end_index": len(text), **place, "text": passage.text}


def _items(message: Message) -> list[Item]:
    """The items that a message becomes; the system message stands in the metadata."""
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.content}]
    if message.role == "user":
        return [_user(message.content)]
    if message.role == "system":
        return []
    calls: list[Item] = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": json.dumps(call.arguments)}
        for call in message.tool_calls
    ]
    said = _message("assistant", [{"type": "output_text", "text": message.content, "annotations": []}])
    return [said, *calls] if message.content or not calls else calls


def _text(item: Item) -> str:
    content = item.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)


def _read(item: Item) -> Message | None:
    match item.get("type"):
        case "message" if item.get("role") in ("user", "assistant"):
            return Message(item["role"], _text(item))
        case "function_call":
            call = {"id": item.get("call_id"), "function": {"name": item["name"], "arguments": item["arguments"]}}
            return Message("assistant", tool_calls=(ToolCall.from_json(call),), end_of_turn=False)
        case "function_call_output":
            return Message("tool", str(item.get("output") or ""), tool_call_id=item.get("call_id") or "")
    return None


def _joined(messages: Sequence[Message]) -> list[Message]:
    """The calls of a turn stand in one message with its text."""
    joined: list[Message] = []
    for message in messages:
        if message.tool_calls and joined and joined[-1].role == "assistant":
            before = joined.pop()
            calls = (*before.tool_calls, *message.tool_calls)
            message = Message("assistant", before.content, calls, end_of_turn=False)
        joined.append(message)
    return joined
