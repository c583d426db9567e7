from __future__ import annotations

import pytest

from puna.stack.errors import ApiError
from puna.stack.responses.items import SEARCH_RESULTS, message, public, read_items


def test_a_text_is_a_users_message() -> None:
    (item,) = read_items("hello")
    assert item["role"] == "user"
    assert item["content"] == [{"type": "input_text", "text": "hello"}]
    assert item["id"].startswith("msg_")
    assert item["status"] == "completed"


def test_the_short_forms_are_read() -> None:
    said, named = read_items([{"role": "assistant", "content": "hi"}, {"id": "msg_1"}])
    assert said["type"] == "message"
    assert said["content"] == [{"type": "output_text", "text": "hi", "annotations": [], "logprobs": []}]
    assert named["type"] == "item_reference"


def test_ids_that_a_client_gives_are_kept() -> None:
    call = {"type": "function_call", "id": "fc_7", "call_id": "c", "name": "f", "arguments": "{}"}
    assert read_items([call])[0] == {**call, "status": "completed"}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        (5, "input.0"),
        ({"type": "spell"}, "input.0.type"),
        ({"type": "message", "role": "oracle", "content": "x"}, "input.0.role"),
        ({"role": "user", "content": 5}, "input.0.content"),
        ({"role": "user", "content": [{"type": "smell"}]}, "input.0.content.0.type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input.0.content.0.text"),
        ({"type": "function_call", "call_id": "c", "name": "f"}, "input.0.arguments"),
        ({"type": "function_call_output", "call_id": "c", "output": 3}, "input.0.output"),
        ({"type": "message", "role": "user", "content": "x", "id": "a/b"}, "input.0.id"),
        ({"type": "file_search_call", "queries": "x"}, "input.0.queries"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(item: object, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_items([item])
    assert caught.value.status == 400
    assert caught.value.param == param


def test_what_only_the_server_knows_is_not_shown() -> None:
    found = [{"file_id": "f", "text": "x"}]
    item = {"type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["q"], "_results": found}
    assert public(item)["results"] is None
    assert public(item, [SEARCH_RESULTS])["results"] == found
    said = message("user", "see")
    said["content"].append({"type": "input_file", "file_id": "file_1", "_text": "the text"})
    assert public(said)["content"][1] == {"type": "input_file", "file_id": "file_1"}


def test_a_client_cannot_set_what_only_the_server_knows() -> None:
    part = {"type": "input_file", "file_id": "file_1", "_text": "forged"}
    (item,) = read_items([{"role": "user", "content": [part]}])
    assert "_text" not in item["content"][0]
