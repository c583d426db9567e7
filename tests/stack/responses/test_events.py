from __future__ import annotations

import json

from puna.core.chat import ToolCall
from puna.stack.errors import ApiError
from puna.stack.responses.events import Script, frame, usage, view


def script() -> Script:
    return Script({"id": "resp_1", "output": []})


def test_a_message_opens_once_and_closes_once() -> None:
    made = script()
    events = [*made.say("Hel"), *made.say("lo"), *made.close()]
    assert [event["type"].removeprefix("response.") for event in events] == [
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert [event["sequence_number"] for event in events] == list(range(7))
    assert events[4]["text"] == events[6]["item"]["content"][0]["text"] == "Hello"
    assert {events[i]["response_id"] for i in (0, 1, 5, 6)} == {"resp_1"}
    assert made.close() == []
    assert made.output == [events[6]["item"]]


def test_a_message_without_a_text_has_no_delta() -> None:
    made = script()
    kinds = [event["type"] for event in (*made.say(""), *made.close("incomplete"))]
    assert "response.output_text.delta" not in kinds
    assert made.output[0]["status"] == "incomplete"


def test_what_a_snapshot_showed_does_not_change() -> None:
    made = script()
    before = made.lifecycle("response.created")
    list(made.say("x"))
    made.close()
    assert before["response"]["output"] == []
    assert len(made.lifecycle("response.completed")["response"]["output"]) == 1


def test_a_call_goes_out_whole() -> None:
    made = script()
    added, delta, done, closed = made.call(ToolCall("f", {"city": "Å"}, "call_1"))
    assert added["item"]["arguments"] == ""
    assert delta["delta"] == done["arguments"] == closed["item"]["arguments"]
    assert json.loads(done["arguments"]) == {"city": "Å"}
    assert closed["item"]["call_id"] == "call_1"


def test_items_are_counted_through() -> None:
    made = script()
    made.call(ToolCall("f", {}, "a"))
    (opened, *_) = made.say("x")
    assert opened["output_index"] == 1


def test_a_failed_search_is_closed_without_being_completed() -> None:
    made = script()
    item, _ = made.search_begins(["q"])
    (done,) = made.search_ends(item, (), "failed")
    assert done["item"]["status"] == "failed"


def test_a_frame_names_its_event() -> None:
    text = frame(script().error(ApiError(502, "gone", code="provider_error"))).decode()
    name, data, *rest = text.split("\n")
    assert name == "event: error"
    assert rest == ["", ""]
    event = json.loads(data.removeprefix("data: "))
    assert event["type"] == "error"
    assert event["error"] == {"type": "model_error", "code": "provider_error", "message": "gone", "param": None}


def test_usage_adds_up() -> None:
    assert usage(3, 4, 1)["total_tokens"] == 7


def test_a_view_hides_what_only_the_server_knows() -> None:
    item = {"type": "file_search_call", "id": "fs_1", "_results": [1]}
    assert view({"output": [item]})["output"] == [{"type": "file_search_call", "id": "fs_1", "results": None}]


def test_an_item_of_any_kind_begins_and_ends_once() -> None:
    made = script()
    item = {"type": "mcp_call", "id": "mcp_1", "_known": 1}
    events = [
        *made.begins(item, "response.a"),
        made.about(item, "response.b", delta="x"),
        *made.ends(item, "response.c"),
    ]
    assert [event["type"] for event in events] == [
        "response.output_item.added",
        "response.a",
        "response.b",
        "response.c",
        "response.output_item.done",
    ]
    assert {event["output_index"] for event in events} == {0}
    assert events[2]["delta"] == "x"
    assert events[0]["item"] == events[-1]["item"] == {"type": "mcp_call", "id": "mcp_1"}
    assert made.output == [item]
    assert [event["type"] for event in made.ends(item)] == ["response.output_item.done"]
