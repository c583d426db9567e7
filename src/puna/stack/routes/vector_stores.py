"""/v1/vector_stores: stores, their files, batches of files, and search.

`rewrite_query` is taken and not followed: nothing here rewrites queries, and the answer's `search_query` shows that
they were searched for as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from starlette.responses import JSONResponse

from puna.stack.context import Stack, caller_of, stack_of
from puna.stack.errors import ApiError, invalid
from puna.stack.state.store import Record, run
from puna.stack.vector_stores.indexes import DEFAULT_CUT
from puna.stack.vector_stores.objects import CHARS_PER_TOKEN, batch_object, file_object, store_object
from puna.stack.vector_stores.records import STORE, Entry
from puna.stack.vector_stores.service import VectorStores
from puna.stack.wire import vector_stores as wire
from puna.stack.wire.base import listed
from puna.stack.wire.files import Deleted

_MODES: dict[str, Literal["hybrid", "words", "vector"]] = {"hybrid": "hybrid", "keyword": "words", "vector": "vector"}
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]


def vector_stores_of(stack: Stack) -> VectorStores:
    return stack.parts["vector_stores"]


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    stack: Stack = app.state.stack
    service = stack.parts["vector_stores"] = VectorStores(stack, asyncio.get_running_loop())
    service.start()
    try:
        yield
    finally:
        service.close()


router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"], lifespan=_running)


def entry_of(body: wire.FileEntry, otherwise: wire.AutoChunking | wire.StaticChunking | None = None) -> Entry:
    """A file to attach, cut as its body says, or as its store says."""
    chunking = body.chunking_strategy or otherwise
    cut = DEFAULT_CUT
    if isinstance(chunking, wire.StaticChunking):
        sizes = chunking.static
        cut = sizes.max_chunk_size_tokens * CHARS_PER_TOKEN, sizes.chunk_overlap_tokens * CHARS_PER_TOKEN
    return Entry(body.file_id, body.attributes or {}, cut)


# Stores ---------------------------------------------------------------------------------------------------------------


@router.post("", response_model=None, responses={200: {"model": wire.VectorStore}})
async def create_store(request: Request, body: wire.CreateVectorStore) -> JSONResponse:
    stack, service = stack_of(request), vector_stores_of(stack_of(request))
    if body.embedding_model:
        stack.model(body.embedding_model, "embedding")
    settings = {
        "name": body.name or "",
        "description": body.description,
        "metadata": body.metadata or {},
        "expires_after": body.expires_after.model_dump() if body.expires_after else None,
        "embedding_model": body.embedding_model or service.indexes.default_model(),
    }
    ids = dict.fromkeys(body.file_ids or [])
    entries = [entry_of(wire.FileEntry(file_id=id), body.chunking_strategy) for id in ids]
    return JSONResponse(store_object(await service.create(caller_of(request).owner, settings, entries)))


@router.get("", response_model=None)
async def list_stores(
    request: Request, limit: Limit = 20, order: Order = "desc", after: str | None = None, before: str | None = None
) -> JSONResponse:
    read = stack_of(request).store.list
    page = await run(read, STORE, caller_of(request).owner, after=after, before=before, limit=limit, order=order)
    return JSONResponse(listed([store_object(record) for record in page.records], page.has_more))


@router.get("/{vector_store_id}", response_model=None, responses={200: {"model": wire.VectorStore}})
async def get_store(request: Request, vector_store_id: str) -> JSONResponse:
    service = vector_stores_of(stack_of(request))
    return JSONResponse(store_object(await run(service.records.get, caller_of(request).owner, vector_store_id)))


@router.post("/{vector_store_id}", response_model=None, responses={200: {"model": wire.VectorStore}})
async def update_store(request: Request, vector_store_id: str, body: wire.UpdateVectorStore) -> JSONResponse:
    service = vector_stores_of(stack_of(request))
    changes = {name: value for name, value in body.model_dump().items() if name in body.model_fields_set}
    for name, empty in (("name", ""), ("metadata", {})):
        if name in changes and changes[name] is None:
            changes[name] = empty
    record = await run(service.records.update, caller_of(request).owner, vector_store_id, changes)
    return JSONResponse(store_object(record))


@router.delete("/{vector_store_id}", response_model=None, responses={200: {"model": Deleted}})
async def delete_store(request: Request, vector_store_id: str) -> JSONResponse:
    await vector_stores_of(stack_of(request)).delete(caller_of(request).owner, vector_store_id)
    return JSONResponse({"id": vector_store_id, "object": "vector_store.deleted", "deleted": True})


@router.post("/{vector_store_id}/search", response_model=None, responses={200: {"model": wire.SearchPage}})
async def search_store(request: Request, vector_store_id: str, body: wire.SearchBody) -> JSONResponse:
    queries = [body.query] if isinstance(body.query, str) else body.query
    hits = await vector_stores_of(stack_of(request)).search(
        caller_of(request).owner,
        [vector_store_id],
        queries,
        body.max_num_results,
        body.filters.model_dump() if body.filters else None,
        mode=_MODES[body.search_mode],
        threshold=body.ranking_options.score_threshold if body.ranking_options else 0.0,
    )
    data = [
        {
            "file_id": hit["file_id"],
            "filename": hit["filename"],
            "score": hit["score"],
            "attributes": hit["attributes"],
            "content": [{"type": "text", "text": hit["text"]}],
        }
        for hit in hits
    ]
    page = {"object": "vector_store.search_results.page", "search_query": queries, "data": data}
    return JSONResponse({**page, "has_more": False, "next_page": None})


# Files ----------------------------------------------------------------------------------------------------------------


@router.post("/{vector_store_id}/files", response_model=None, responses={200: {"model": wire.VectorStoreFile}})
async def attach_file(request: Request, vector_store_id: str, body: wire.FileEntry) -> JSONResponse:
    service = vector_stores_of(stack_of(request))
    record = await service.attach(caller_of(request).owner, vector_store_id, entry_of(body))
    return JSONResponse(file_object(record))


async def _page(
    request: Request, store_id: str, keep: Callable[[Record], bool], limit: int, paging: dict[str, Any]
) -> JSONResponse:
    if paging["after"] and paging["before"]:
        raise invalid("A page is after one file or before one, not both.", "before")
    service = vector_stores_of(stack_of(request))
    page = await run(service.records.list_files, caller_of(request).owner, store_id, keep, limit, paging)
    return JSONResponse(listed([file_object(record) for record in page.records], page.has_more))


@router.get("/{vector_store_id}/files", response_model=None)
async def list_store_files(
    request: Request,
    vector_store_id: str,
    limit: Limit = 20,
    order: Order = "desc",
    after: str | None = None,
    before: str | None = None,
    filter: wire.FileStatus | None = None,
) -> JSONResponse:
    paging = {"order": order, "after": after, "before": before}
    return await _page(request, vector_store_id, lambda record: filter in (None, record.data["status"]), limit, paging)


async def _file(request: Request, store_id: str, file_id: str) -> Record:
    service = vector_stores_of(stack_of(request))
    return await run(service.records.file, caller_of(request).owner, store_id, file_id)


@router.get("/{vector_store_id}/files/{file_id}", response_model=None, responses={200: {"model": wire.VectorStoreFile}})
async def get_store_file(request: Request, vector_store_id: str, file_id: str) -> JSONResponse:
    return JSONResponse(file_object(await _file(request, vector_store_id, file_id)))


@router.post(
    "/{vector_store_id}/files/{file_id}", response_model=None, responses={200: {"model": wire.VectorStoreFile}}
)
async def update_store_file(
    request: Request, vector_store_id: str, file_id: str, body: wire.UpdateFile
) -> JSONResponse:
    service = vector_stores_of(stack_of(request))
    owner = caller_of(request).owner
    return JSONResponse(
        file_object(await service.set_attributes(owner, vector_store_id, file_id, body.attributes or {}))
    )


@router.delete("/{vector_store_id}/files/{file_id}", response_model=None, responses={200: {"model": Deleted}})
async def detach_file(request: Request, vector_store_id: str, file_id: str) -> JSONResponse:
    await _file(request, vector_store_id, file_id)
    await vector_stores_of(stack_of(request)).detach(caller_of(request).owner, vector_store_id, file_id)
    return JSONResponse({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})


@router.get("/{vector_store_id}/files/{file_id}/content", response_model=None)
async def get_store_file_content(request: Request, vector_store_id: str, file_id: str) -> JSONResponse:
    """The text that was read from a file."""
    record = await _file(request, vector_store_id, file_id)
    if record.data["status"] != "completed":
        status = record.data["status"]
        raise ApiError(400, f"The file {file_id!r} is {status}, and has no content yet.", code="file_not_ready")
    document = await run(vector_stores_of(stack_of(request)).indexes.document, vector_store_id, file_id)
    data = [{"type": "text", "text": document.text}] if document else []
    page = {"object": "vector_store.file_content.page", "data": data, "has_more": False, "next_page": None}
    known = {"file_id": file_id, "filename": record.data["filename"], "attributes": record.data["attributes"]}
    return JSONResponse({**page, **known})


# Batches of files -----------------------------------------------------------------------------------------------------


@router.post("/{vector_store_id}/file_batches", response_model=None, responses={200: {"model": wire.FileBatch}})
async def create_file_batch(request: Request, vector_store_id: str, body: wire.CreateFileBatch) -> JSONResponse:
    entries = [entry_of(entry) for entry in body.entries()]
    if not entries:
        raise invalid("A batch needs 'file_ids' or 'files'.", "file_ids")
    service = vector_stores_of(stack_of(request))
    record = await run(service.records.create_batch, caller_of(request).owner, vector_store_id, entries)
    service.wake()
    return JSONResponse(batch_object(record))


async def _batch(request: Request, store_id: str, batch_id: str) -> Record:
    service = vector_stores_of(stack_of(request))
    return await run(service.records.batch, caller_of(request).owner, store_id, batch_id)


@router.get(
    "/{vector_store_id}/file_batches/{batch_id}", response_model=None, responses={200: {"model": wire.FileBatch}}
)
async def get_file_batch(request: Request, vector_store_id: str, batch_id: str) -> JSONResponse:
    return JSONResponse(batch_object(await _batch(request, vector_store_id, batch_id)))


@router.post(
    "/{vector_store_id}/file_batches/{batch_id}/cancel", response_model=None, responses={200: {"model": wire.FileBatch}}
)
async def cancel_file_batch(request: Request, vector_store_id: str, batch_id: str) -> JSONResponse:
    service = vector_stores_of(stack_of(request))
    record = await run(service.records.cancel_batch, caller_of(request).owner, vector_store_id, batch_id)
    service.wake()
    return JSONResponse(batch_object(record))


@router.get("/{vector_store_id}/file_batches/{batch_id}/files", response_model=None)
async def list_batch_files(
    request: Request,
    vector_store_id: str,
    batch_id: str,
    limit: Limit = 20,
    order: Order = "desc",
    after: str | None = None,
    before: str | None = None,
    filter: wire.FileStatus | None = None,
) -> JSONResponse:
    await _batch(request, vector_store_id, batch_id)

    def keep(record: Record) -> bool:
        return record.data["batch_id"] == batch_id and filter in (None, record.data["status"])

    return await _page(request, vector_store_id, keep, limit, {"order": order, "after": after, "before": before})
