"""`file_search`: asks the vector stores, and finds what an answer cites of the passages.

A citation is either named, by a passage's number in brackets as the model was told, or found: a sentence of the answer
that stands in a passage word for word. Both point at a file that the search really gave; a number that no passage has
is no citation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from puna.stack.context import Stack
from puna.stack.errors import ApiError, as_api_error, invalid
from puna.stack.responses.items import Item
from puna.stack.responses.tools import FileSearch

_PART = "vector_stores"
_MARK = re.compile(r"\[(\d{1,3})\]")
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_QUOTED = 24  # characters from which on equal words are no chance


class VectorStores(Protocol):
    """What `stack.parts["vector_stores"]` does."""

    async def search(
        self,
        owner: str,
        vector_store_ids: Sequence[str],
        queries: Sequence[str],
        limit: int,
        filters: Mapping[str, Any] | None,
    ) -> Sequence[Mapping[str, Any]]:
        """Passages, best first, each with file_id, filename, score and text."""
        ...


def require_vector_stores(stack: Stack) -> None:
    """Refuses a response with `file_search` before it begins.

    Raises:
        ApiError: 400 where this server has no vector stores.
    """
    if _PART not in stack.parts:
        raise invalid("This server has no vector stores, so that file_search has nothing to look in.", "tools")


def queries_of(arguments: Mapping[str, Any]) -> list[str]:
    """What a model's call looks for; a model may give one text or several."""
    found = arguments.get("query", arguments.get("queries"))
    texts = [found] if isinstance(found, str) else found if isinstance(found, Sequence) else []
    return [text for text in texts if isinstance(text, str) and text.strip()]


async def search(stack: Stack, owner: str, where: FileSearch, queries: Sequence[str]) -> list[dict[str, Any]]:
    """The passages, as the results of a `file_search_call`.

    Raises:
        ApiError: a store is not there, or cannot be searched.
    """
    if not queries:
        return []
    stores: VectorStores = stack.parts[_PART]
    try:
        hits = await stores.search(owner, list(where.stores), list(queries), where.limit, where.filters)
    except Exception as error:
        refusal = as_api_error(error)
        raise ApiError(
            refusal.status, f"file_search failed: {refusal.message}", param="tools", code=refusal.code
        ) from error
    return [_result(hit) for hit in hits if hit["score"] >= where.threshold][: where.limit]


def _result(hit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "file_id": hit["file_id"],
        "filename": hit["filename"],
        "score": float(hit["score"]),
        "text": hit["text"],
        "attributes": dict(hit.get("attributes") or {}),
    }


def citations(text: str, items: Sequence[Item]) -> list[dict[str, Any]]:
    """Annotations of an answer, by place.

    Args:
        text: of the answer.
        items: the response's, among them the searches that came before.
    """
    searches = [item["_results"] for item in items if item.get("_results")]
    if not searches:
        return []
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for match in _MARK.finditer(text):
        # Each search numbers its passages from 1; the model speaks of those that it saw last.
        number = int(match[1])
        named = next((results[number - 1] for results in reversed(searches) if 1 <= number <= len(results)), None)
        if named is not None:
            _add(found, match.start(), named)
    every = [result for results in reversed(searches) for result in results]
    folded = [(result, _folded(result["text"])) for result in every]
    for match in _SENTENCE.finditer(text):
        sentence = _folded(_MARK.sub("", match[0]))
        quoted = next((r for r, whole in folded if len(sentence) >= _QUOTED and sentence in whole), None)
        if quoted is not None and not any(id == quoted["file_id"] and _within(at, match) for at, id in found):
            _add(found, match.end(), quoted)
    return [found[place] for place in sorted(found)]


def _within(at: int, match: re.Match[str]) -> bool:
    return match.start() <= at <= match.end()


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _add(found: dict[tuple[int, str], dict[str, Any]], at: int, result: Mapping[str, Any]) -> None:
    note = {"type": "file_citation", "index": at, "file_id": result["file_id"], "filename": result["filename"]}
    found[at, result["file_id"]] = note
