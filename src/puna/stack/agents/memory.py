"""What an agent is given to read before it answers: the documents of a turn, and passages from its vector stores.

The group "builtin::memory" with the argument `vector_store_ids` makes every turn look into those stores with the user's
words. Text beyond the limit is cut, and says so.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from puna.stack.agents.llama import text_of
from puna.stack.context import Stack
from puna.stack.errors import ApiError, invalid, not_implemented

GROUP = "builtin::memory"
_LONGEST = 16_000
_PASSAGES = 5
_CUT = " [cut]"


@dataclass(frozen=True, slots=True)
class Recalled:
    """Text for the model, and the stores that it comes from, by comma."""

    text: str
    stores: str


async def recall(
    stack: Stack, owner: str, query: str, documents: Sequence[Mapping[str, Any]], groups: Sequence[Any]
) -> Recalled | None:
    """What there is to read; None where nothing was given and no store is looked into."""
    texts = [f"Document {number}:\n{_document(document)}" for number, document in enumerate(documents, 1)]
    stores: list[str] = []
    for group in groups:
        if not isinstance(group, str) and group.get("name") == GROUP:
            args = group.get("args") or {}
            ids = args.get("vector_store_ids") or args.get("vector_db_ids") or []
            if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
                raise invalid(f"{GROUP} needs vector_store_ids.", "toolgroups")
            stores += map(str, ids)
            limit = args.get("max_chunks") or _PASSAGES
            if not isinstance(limit, int) or limit < 1:
                raise invalid(f"max_chunks is {limit!r}; it must be a whole number.", "toolgroups")
            texts += await _passages(stack, owner, query, ids, limit)
    if not texts and not stores:
        return None
    return Recalled(_within(texts or ["Nothing was found."], _LONGEST), ", ".join(stores))


async def _passages(stack: Stack, owner: str, query: str, ids: Sequence[str], limit: int) -> list[str]:
    found = stack.parts.get("vector_stores")
    if found is None:
        raise ApiError(400, "This server has no vector stores to remember from.", param="toolgroups")
    hits = await found.search(owner, list(ids), [query], limit, None)
    return [f"From {hit['filename']}:\n{hit['text']}" for hit in hits]


def _document(document: Mapping[str, Any]) -> str:
    """The text of a document that came with a turn."""
    content, kind = document.get("content"), str(document.get("mime_type") or "text/plain")
    uri = content.get("uri") if isinstance(content, Mapping) else None
    if not kind.startswith("text/") and kind != "application/json":
        raise invalid(f"A document of type {kind} cannot be read here; upload it as a file.", "documents")
    if uri is None:
        return text_of(content, "documents")
    if not str(uri).startswith("data:"):
        raise not_implemented("Nothing here fetches documents from addresses yet; send the text.")
    head, _, body = str(uri).removeprefix("data:").partition(",")
    if head.endswith(";base64"):
        try:
            return base64.b64decode(body, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise invalid(f"A document's data: URI cannot be read: {error}.", "documents") from error
    return unquote_to_bytes(body).decode("utf-8", "replace")


def _within(texts: Sequence[str], longest: int) -> str:
    """The texts, each cut to its share where together they are too long."""
    share = max(len(_CUT) + 1, longest // len(texts))
    if sum(map(len, texts)) > longest:
        texts = [text if len(text) <= share else text[: share - len(_CUT)] + _CUT for text in texts]
    return "\n\n".join(texts)
