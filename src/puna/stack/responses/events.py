"""The events of one response in the order that Open Responses sets, and the response as it stands between them.

`Script` is the state machine of the wire: at most one item is open at a time, every item opens and closes once, and an
item in `output` is never changed again, so that a snapshot in an event stays what it was.

    lifecycle -> (item added -> [part added -> deltas -> text done -> part done] -> item done)* -> lifecycle
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from puna.core.chat import ToolCall
from puna.stack import sse
from puna.stack.errors import ApiError
from puna.stack.responses.items import Item, item_id, output_text, public

Event = dict[str, Any]
TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


def frame(event: Event) -> bytes:
    """An event on the wire."""
    return sse.event(event, event["type"])


def view(response: Mapping[str, Any], include: Collection[str] = ()) -> dict[str, Any]:
    """A response as clients see it, and as it is now."""
    return {**response, "output": [public(item, include) for item in response["output"]]}


def usage(read: int, written: int, cached: int) -> dict[str, Any]:
    """The tokens of a response."""
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }


class Script:
    """Args:
    response: the object, which the script fills.
    include: what clients want to see of items.
    """

    def __init__(self, response: dict[str, Any], include: Collection[str] = ()) -> None:
        self.response, self.include = response, include
        self._next = 0
        self._open: Item | None = None  # the message under way
        self._pieces: list[str] = []

    @property
    def output(self) -> list[Item]:
        return self.response["output"]

    @property
    def text(self) -> str:
        """Of the message under way."""
        return "".join(self._pieces)

    def event(self, type: str, **fields: Any) -> Event:
        number = self._next
        self._next += 1
        return {"type": type, "sequence_number": number, **fields}

    def lifecycle(self, type: str) -> Event:
        return self.event(type, response=view(self.response, self.include))

    def error(self, error: ApiError) -> Event:
        """The fields stand within "error", where Open Responses has them, and beside it, where OpenAI has them."""
        fields = {"code": error.code or error.type, "message": error.message, "param": error.param}
        return self.event("error", **fields, error={"type": error.type, **fields})

    # Messages ---------------------------------------------------------------------------------------------------------

    def say(self, delta: str) -> list[Event]:
        """More text of the message under way, which opens with the first; "" opens one without a text."""
        events = [] if self._open else self._open_message()
        self._pieces.append(delta)
        if delta:
            events.append(self.event("response.output_text.delta", **self._place(), delta=delta, logprobs=[]))
        return events

    def _open_message(self) -> list[Event]:
        item = {"type": "message", "id": item_id("message"), "status": "in_progress", "role": "assistant"}
        self._open, self._pieces = item, []
        return [
            self._added({**item, "content": []}),
            self.event("response.content_part.added", **self._part_place(), part=output_text("")),
        ]

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self.output), "content_index": 0}

    def _part_place(self) -> dict[str, Any]:
        """Llama Stack's clients look for the response's id in events of parts."""
        return {**self._place(), "response_id": self.response["id"]}

    def close(
        self,
        status: str = "completed",
        annotations: Sequence[Mapping[str, Any]] = (),
        logprobs: Sequence[Mapping[str, Any]] = (),
    ) -> list[Event]:
        """Ends the message under way, if there is one."""
        if self._open is None:
            return []
        place, text = self._place(), self.text
        events = [
            self.event("response.output_text.annotation.added", **place, annotation_index=i, annotation=dict(note))
            for i, note in enumerate(annotations)
        ]
        part = output_text(text, annotations, logprobs)
        events.append(self.event("response.output_text.done", **place, text=text, logprobs=list(logprobs)))
        events.append(self.event("response.content_part.done", **self._part_place(), part=part))
        item = {**self._open, "status": status, "content": [part]}
        self._open, self._pieces = None, []
        return [*events, self._done(item)]

    def refuse(self, reason: str) -> list[Event]:
        """A message of the server's own, in place of an answer."""
        item = {"type": "message", "id": item_id("message"), "status": "in_progress", "role": "assistant"}
        place = {"item_id": item["id"], "output_index": len(self.output), "content_index": 0}
        part = {"type": "refusal", "refusal": reason}
        return [
            self._added({**item, "content": []}),
            self.event("response.content_part.added", **place, part={**part, "refusal": ""}),
            self.event("response.refusal.delta", **place, delta=reason),
            self.event("response.refusal.done", **place, refusal=reason),
            self.event("response.content_part.done", **place, part=part),
            self._done({**item, "status": "completed", "content": [part]}),
        ]

    # Calls ------------------------------------------------------------------------------------------------------------

    def call(self, call: ToolCall) -> list[Event]:
        """A whole call of a client's function. The formats of calls can be read only at their ends: one delta."""
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        item = {
            "type": "function_call",
            "id": item_id("function_call"),
            "status": "in_progress",
            "call_id": call.id,
            "name": call.name,
            "arguments": "",
        }
        place = {"item_id": item["id"], "output_index": len(self.output)}
        return [
            self._added(item),
            self.event("response.function_call_arguments.delta", **place, delta=arguments),
            self.event("response.function_call_arguments.done", **place, name=call.name, arguments=arguments),
            self._done({**item, "status": "completed", "arguments": arguments}),
        ]

    def search_begins(self, queries: Sequence[str]) -> tuple[Item, list[Event]]:
        """The item of a search, which `search_ends` takes back."""
        item: Item = {
            "type": "file_search_call",
            "id": item_id("file_search_call"),
            "status": "in_progress",
            "queries": list(queries),
        }
        said = self.begins(item, "response.file_search_call.in_progress")
        return item, [*said, self.about(item, "response.file_search_call.searching")]

    def search_ends(self, item: Item, results: Sequence[Mapping[str, Any]], status: str = "completed") -> list[Event]:
        whole = {**item, "status": status, "_results": [dict(result) for result in results]}
        return self.ends(whole, "response.file_search_call.completed" if status == "completed" else "")

    # Any item ---------------------------------------------------------------------------------------------------------

    def begins(self, item: Item, type: str = "") -> list[Event]:
        """An item that is not whole yet, and what is said of it first."""
        return [self._added(item), *([self.about(item, type)] if type else [])]

    def about(self, item: Item, type: str, **fields: Any) -> Event:
        """Something of the item under way."""
        return self.event(type, item_id=item["id"], output_index=len(self.output), **fields)

    def ends(self, item: Item, type: str = "") -> list[Event]:
        """The whole item, and what is said of it last."""
        return [*([self.about(item, type)] if type else []), self._done(item)]

    def _added(self, item: Item) -> Event:
        return self._of_item("response.output_item.added", item)

    def _done(self, item: Item) -> Event:
        event = self._of_item("response.output_item.done", item)
        self.output.append(item)
        return event

    def _of_item(self, type: str, item: Item) -> Event:
        """OGX's clients refuse this event and that of a part without the response's id; OpenAI's read over it."""
        place = {"response_id": self.response["id"], "output_index": len(self.output)}
        return self.event(type, **place, item=public(item, self.include))
