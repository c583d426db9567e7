"""/v1/vector-io: passages that the caller cut, put into a vector store and found again, in the Llama Stack's form.

Each passage is a document of its own, so that it is found whole. Vectors that come with a passage are not kept: a store
has one embedding model, and nobody could say whether they are its.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from puna.core.document import Document
from puna.stack.context import caller_of, stack_of
from puna.stack.errors import invalid
from puna.stack.routes.vector_stores import vector_stores_of
from puna.stack.state.store import Record, run
from puna.stack.vector_stores.indexes import Indexes
from puna.stack.vector_stores.service import CHUNK, VectorStores
from puna.stack.wire import vector_stores as wire

_WHOLE = 1 << 20, 0  # passages are cut no further
_MODES: dict[str, Literal["hybrid", "words", "vector"]] = {"hybrid": "hybrid", "keyword": "words", "vector": "vector"}

router = APIRouter(prefix="/v1/vector-io", tags=["vector stores"])


@router.post("/insert", response_model=None)
async def insert(request: Request, body: wire.InsertChunks) -> JSONResponse:
    service, store = await _store(request, body)
    documents = [_document(chunk, f"chunks.{i}") for i, chunk in enumerate(body.chunks)]
    for document in documents:
        attributes = document.meta["metadata"]
        put = partial(service.indexes.put, store.id, store.data["embedding_model"])
        await run(put, document, attributes, _WHOLE)
    return JSONResponse({"vector_store_id": store.id, "inserted": [doc.id.removeprefix(CHUNK) for doc in documents]})


@router.post("/query", response_model=None)
async def query(request: Request, body: wire.QueryChunks) -> JSONResponse:
    service, store = await _store(request, body)
    params = body.params or {}
    limit, mode = params.get("max_chunks", 10), params.get("mode", "hybrid")
    threshold = params.get("score_threshold", 0.0)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1000:
        raise invalid(f"max_chunks is {limit!r}; it must be a number from 1 to 1000.", "params.max_chunks")
    if mode not in _MODES:
        raise invalid(f"mode is {mode!r}. Known: {', '.join(_MODES)}.", "params.mode")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float):
        raise invalid(f"score_threshold is {threshold!r}; it must be a number.", "params.score_threshold")
    hits = await service.search(
        caller_of(request).owner,
        [store.id],
        [_text(body.query, "query")],
        limit,
        mode=_MODES[mode],
        threshold=threshold,
    )
    model = store.data["embedding_model"]
    # The vectors stay in the index; clients that insist on the field get an empty one.
    vector = {"embedding": [], "embedding_model": model, "embedding_dimension": service.indexes.dimensions(model)}
    chunks = await run(lambda: [_chunk(service.indexes, store.id, hit) | vector for hit in hits])
    return JSONResponse({"chunks": chunks, "scores": [hit["score"] for hit in hits]})


async def _store(request: Request, body: wire.InsertChunks | wire.QueryChunks) -> tuple[VectorStores, Record]:
    id = body.vector_store_id or body.vector_db_id
    if not id:
        raise invalid("The body names no vector store.", "vector_store_id")
    service = vector_stores_of(stack_of(request))
    return service, await run(partial(service.records.get, caller_of(request).owner, id, usable=True))


def _document(chunk: wire.Chunk, place: str) -> Document:
    text = _text(chunk.content, f"{place}.content")
    if not text.strip():
        raise invalid("The passage is empty.", f"{place}.content")
    metadata = dict(chunk.metadata or {})
    known = dict(chunk.chunk_metadata or {})
    name = str(metadata.get("document_id") or known.get("document_id") or "")
    # Equal passages of one document are one: inserting again changes nothing.
    id = chunk.chunk_id or hashlib.sha256(f"{name}\0{text}".encode(errors="replace")).hexdigest()[:32]
    source = str(metadata.get("source") or known.get("source") or name)
    return Document(text, f"{CHUNK}{id}", source, meta={"metadata": metadata, "chunk_metadata": known})


def _text(content: str | Sequence[Any] | Mapping[str, Any], place: str) -> str:
    """The text of an interleaved content: a text, a part, or a list of both."""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        if content.get("type") == "text" and isinstance(content.get("text"), str):
            return content["text"]
        raise invalid(f"A part of the type {content.get('type')!r} cannot be searched; only text can.", place)
    return "\n".join(_text(part, place) for part in content)


def _chunk(indexes: Indexes, store_id: str, hit: Mapping[str, Any]) -> dict[str, Any]:
    """A passage that was found: the caller's own whole, or one of a file."""
    document = indexes.document(store_id, hit["document_id"]) if hit["document_id"].startswith(CHUNK) else None
    if document:
        id = hit["document_id"].removeprefix(CHUNK)
        content, metadata, known = document.text, document.meta["metadata"], document.meta["chunk_metadata"]
    else:
        id = f"{hit['file_id']}:{hit['start']}-{hit['end']}"
        content, metadata = hit["text"], {**hit["attributes"], "document_id": hit["file_id"]}
        known = {"document_id": hit["file_id"], "source": hit["filename"]}
    return {"content": content, "chunk_id": id, "metadata": metadata, "chunk_metadata": {**known, "chunk_id": id}}
