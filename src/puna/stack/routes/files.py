"""/v1/files: upload, list, read, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, File, Form, Query, Request, UploadFile
from pydantic import ValidationError
from starlette.responses import FileResponse, JSONResponse

from puna.stack.context import Stack, caller_of, stack_of
from puna.stack.errors import invalid
from puna.stack.state.parts import queue_of, uploads_of
from puna.stack.state.store import run
from puna.stack.state.uploads import file_object
from puna.stack.wire import files as wire
from puna.stack.wire.base import listed

_SECONDS = 3600, 2_592_000
_PIECE = 1 << 20


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    stack: Stack = app.state.stack
    stack.background(uploads_of(stack).sweeper.run())
    try:
        yield
    finally:
        queue_of(stack).close()


router = APIRouter(prefix="/v1/files", tags=["files"], lifespan=_running)


@router.post("", response_model=None, responses={200: {"model": wire.File}})
async def create_file(
    request: Request,
    file: Annotated[UploadFile, File()],
    purpose: Annotated[str, Form()],
    anchor: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
    seconds: Annotated[int | None, Form(alias="expires_after[seconds]")] = None,
    expires_after: Annotated[str | None, Form(description="Both at once, as JSON; as the OGX client sends it.")] = None,
) -> JSONResponse:
    if purpose not in wire.UPLOAD_PURPOSES:
        known = ", ".join(wire.UPLOAD_PURPOSES)
        raise invalid(f"A file cannot be uploaded for the purpose {purpose!r}. Known: {known}.", "purpose")
    if expires_after is not None:
        anchor, seconds = _expiry(expires_after)
    if anchor not in (None, "created_at"):
        raise invalid(f"A file expires some time after 'created_at', not after {anchor!r}.", "expires_after[anchor]")
    if seconds is not None and not _SECONDS[0] <= seconds <= _SECONDS[1]:
        message = f"A file expires after {_SECONDS[0]} to {_SECONDS[1]} seconds, not after {seconds}."
        raise invalid(message, "expires_after[seconds]")
    if (anchor is None) != (seconds is None):
        raise invalid("expires_after needs both 'anchor' and 'seconds'.", "expires_after")
    uploads, owner = uploads_of(stack_of(request)), caller_of(request).owner
    name = file.filename or "file"
    return JSONResponse(file_object(await uploads.create(owner, name, purpose, _pieces(file), seconds=seconds)))


def _expiry(text: str) -> tuple[str, int]:
    try:
        data = wire.ExpiresAfter.model_validate_json(text)
    except ValidationError as error:
        message = 'expires_after is not JSON like {"anchor": "created_at", "seconds": 3600}.'
        raise invalid(message, "expires_after") from error
    return data.anchor, data.seconds


async def _pieces(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE):
        yield piece


@router.get("", response_model=None, responses={200: {"model": wire.FileList}})
async def list_files(
    request: Request,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    uploads = uploads_of(stack_of(request))
    page = await run(uploads.list, caller_of(request).owner, purpose, limit, after, order)
    return JSONResponse(listed([file_object(record) for record in page.records], page.has_more))


@router.get("/{file_id}", response_model=None, responses={200: {"model": wire.File}})
async def get_file(request: Request, file_id: str) -> JSONResponse:
    uploads = uploads_of(stack_of(request))
    return JSONResponse(file_object(await run(uploads.get, caller_of(request).owner, file_id)))


@router.get("/{file_id}/content", response_model=None, responses={200: {"content": {"application/octet-stream": {}}}})
async def get_content(request: Request, file_id: str) -> FileResponse:
    uploads = uploads_of(stack_of(request))
    record = await run(uploads.get, caller_of(request).owner, file_id)
    # As an attachment of no type: an uploaded page must never run as one of this server's.
    return FileResponse(
        uploads.files.path(record.id),
        media_type="application/octet-stream",
        filename=record.data["filename"],
        headers={"X-Content-Type-Options": "nosniff"},
    )


@router.delete("/{file_id}", response_model=None, responses={200: {"model": wire.Deleted}})
async def delete_file(request: Request, file_id: str) -> JSONResponse:
    stack, owner = stack_of(request), caller_of(request).owner
    uploads = uploads_of(stack)
    record = await run(uploads.get, owner, file_id)
    for store_id in record.data["stores"]:
        await stack.parts["vector_stores"].detach(owner, store_id, file_id)
    await run(uploads.delete, owner, file_id)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})
