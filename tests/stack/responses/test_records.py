from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.responses import records
from puna.stack.responses.items import Item, message
from puna.stack.responses.records import Kept
from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return SqliteStore(tmp_path / "stack.db")


def response(id: str, *output: Item, previous: str | None = None, status: str = "completed") -> dict[str, Any]:
    fields = {"created_at": 1, "store": True, "previous_response_id": previous}
    return {"id": id, "status": status, "output": list(output), **fields}


def said(items: list[Item]) -> list[str]:
    return [item["content"][0]["text"] for item in items]


def finish(store: Store, kept: Kept, owner: str = "") -> None:
    with store.transaction():
        records.finish(store, owner, kept, whole=True)


def test_what_is_written_is_read_again(store: Store) -> None:
    kept = Kept(response("resp_1", message("assistant", "b")), [message("user", "a")], include=("x",))
    finish(store, kept)
    assert records.load(store, "", "resp_1") == kept
    with pytest.raises(ApiError) as caught:
        records.load(store, "bob", "resp_1")
    assert caught.value.status == 404


def test_a_chain_is_read_from_its_beginning(store: Store) -> None:
    finish(store, Kept(response("resp_1", message("assistant", "b")), [message("user", "a")]))
    finish(store, Kept(response("resp_2", message("assistant", "d"), previous="resp_1"), [message("user", "c")]))
    assert said(records.chain(store, "", "resp_2")) == ["a", "b", "c", "d"]


def test_a_chain_with_a_hole_is_refused(store: Store) -> None:
    finish(store, Kept(response("resp_1"), []))
    finish(store, Kept(response("resp_2", previous="resp_1"), []))
    assert records.delete(store, "", "resp_1")
    with pytest.raises(ApiError, match="resp_1") as caught:
        records.chain(store, "", "resp_2")
    assert caught.value.param == "previous_response_id"


@pytest.mark.parametrize("status", ["queued", "in_progress", "failed", "cancelled"])
def test_only_what_ended_can_be_gone_on_from(store: Store, status: str) -> None:
    records.save(store, "", Kept(response("resp_1", status=status)))
    with pytest.raises(ApiError, match=status):
        records.chain(store, "", "resp_1")


def test_a_reference_finds_an_item_of_its_owner(store: Store) -> None:
    answer = message("assistant", "b")
    finish(store, Kept(response("resp_1", answer)), "ann")
    reference = {"type": "item_reference", "id": answer["id"]}
    assert records.resolved(store, "ann", [reference], "", "input") == [answer]
    with pytest.raises(ApiError) as caught:
        records.resolved(store, "bob", [reference], "", "input")
    assert (caught.value.status, caught.value.param) == (404, "input.0.id")


def test_a_search_that_is_sent_again_has_its_results(store: Store) -> None:
    found = {"type": "file_search_call", "id": "fs_1", "queries": ["q"], "_results": [{"text": "x"}]}
    finish(store, Kept(response("resp_1", found)))
    sent = {key: value for key, value in found.items() if key != "_results"}
    assert records.resolved(store, "", [sent], "", "input") == [found]
    assert records.resolved(store, "", [{**sent, "id": "fs_2"}], "", "input")[0]["_results"] == []


def test_a_conversation_gets_what_was_asked_and_answered(store: Store) -> None:
    store.put(records.CONVERSATION, "conv_1", {"metadata": {}})
    first = message("user", "a")
    finish(store, Kept(response("resp_1", message("assistant", "b")), [first], "conv_1"))
    items, upto = records.conversation_items(store, "", "conv_1")
    # The same item sent again is another item of the conversation.
    finish(store, Kept(response("resp_2", message("assistant", "c")), [first], "conv_1", upto))
    later, _ = records.conversation_items(store, "", "conv_1")
    assert said(items) == ["a", "b"]
    assert said(later) == ["a", "b", "a", "c"]
    assert len({item["id"] for item in later}) == 4
    assert said(records.chain(store, "", "resp_2")) == ["a", "b", "a", "c"]
    assert said(records.chain(store, "", "resp_1")) == ["a", "b"]


def test_a_conversation_that_was_deleted_stays_so(store: Store) -> None:
    finish(store, Kept(response("resp_1", message("assistant", "b")), [], "conv_1"))
    assert store.list(records.CONVERSATION_ITEM).records == []
    with pytest.raises(ApiError):
        records.conversation_items(store, "", "conv_1")


def test_all_pages_are_read(store: Store) -> None:
    with store.transaction():
        for i in range(1203):
            store.insert("thing", str(i), {})
    assert [record.id for record in records.every(store, "thing", "")] == [str(i) for i in range(1203)]


def test_what_is_not_stored_leaves_nothing(store: Store) -> None:
    finish(store, Kept({**response("resp_1", message("assistant", "b")), "store": False}))
    assert store.get(records.RESPONSE, "resp_1") is None
    assert store.list(records.RESPONSE_ITEM, parent="resp_1").records == []
