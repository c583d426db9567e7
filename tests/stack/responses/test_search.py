from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from puna.stack.errors import ApiError, not_found
from puna.stack.responses.search import citations, queries_of, require_vector_stores, search
from puna.stack.responses.tools import FileSearch
from puna.stack.testing import make_stack

BOLTS = {"file_id": "file_1", "filename": "bolts.md", "score": 0.9, "text": "The bolts of the lid are M4 screws."}
NUTS = {"file_id": "file_2", "filename": "nuts.md", "score": 0.2, "text": "Nuts lie in the blue box."}
SEARCHED = [{"type": "file_search_call", "_results": [BOLTS, NUTS]}]


class Stores:
    def __init__(self, found: Sequence[Mapping[str, Any]] | Exception) -> None:
        self.found, self.asked = found, []

    async def search(
        self, owner: str, vector_store_ids: list[str], queries: list[str], limit: int, filters: Any
    ) -> Sequence[Mapping[str, Any]]:
        self.asked.append((owner, vector_store_ids, queries, limit, filters))
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def test_a_server_without_vector_stores_says_so(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="no vector stores"):
        require_vector_stores(make_stack(tmp_path))


def test_what_scores_too_low_is_left_out(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    stores = stack.parts["vector_stores"] = Stores([BOLTS, NUTS])
    where = FileSearch(("vs_1",), 5, {"type": "eq", "key": "k", "value": "v"}, 0.5)
    (found,) = asyncio.run(search(stack, "ann", where, ["bolts"]))
    assert found == {**BOLTS, "attributes": {}}
    assert stores.asked == [("ann", ["vs_1"], ["bolts"], 5, where.filters)]


def test_a_refusal_of_the_stores_names_the_search(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)
    stack.parts["vector_stores"] = Stores(not_found("vector store", "vs_9"))
    with pytest.raises(ApiError, match=r"file_search failed.*vs_9") as caught:
        asyncio.run(search(stack, "", FileSearch(("vs_9",)), ["x"]))
    assert caught.value.status == 404


def test_a_model_may_look_for_one_thing_or_several() -> None:
    assert queries_of({"query": "a"}) == ["a"]
    assert queries_of({"queries": ["a", "b", " "]}) == ["a", "b"]
    assert queries_of({"query": 5}) == queries_of({}) == []


def test_a_named_passage_is_cited_where_it_is_named() -> None:
    (note,) = citations("They are M4 [1].", SEARCHED)
    assert note == {"type": "file_citation", "index": 12, "file_id": "file_1", "filename": "bolts.md"}


def test_a_number_that_no_passage_has_is_no_citation() -> None:
    assert citations("They are M5 [3], [0].", SEARCHED) == []
    assert citations("They are M4 [1].", []) == []


def test_a_sentence_of_a_passage_is_cited_without_being_named() -> None:
    text = "I looked. The  bolts of the lid are M4 screws. Good luck."
    (note,) = citations(text, SEARCHED)
    assert note["file_id"] == "file_1"
    assert text[: note["index"]].endswith("screws.")


def test_a_sentence_that_names_its_passage_is_cited_once() -> None:
    assert len(citations("The bolts of the lid are M4 screws [1].", SEARCHED)) == 1
