"""`VectorStores`: what the routes and the agents ask of vector stores.

A file is attached at once and indexed in the background; a server that is killed in between goes on with it at its next
start, because the work was noted together with the attachment. What is detached is found no more from the answer on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from puna.stack import spans
from puna.stack.context import Stack
from puna.stack.errors import as_api_error, invalid
from puna.stack.state.parts import queue_of, uploads_of
from puna.stack.state.store import Record, run
from puna.stack.state.work import Work
from puna.stack.state.worker import Worker
from puna.stack.vector_stores import records
from puna.stack.vector_stores.indexes import Indexes
from puna.stack.vector_stores.merging import merge
from puna.stack.vector_stores.reading import UnreadableError, read_text
from puna.stack.vector_stores.records import Entry, Records

if TYPE_CHECKING:
    from puna.knowledge.library import Hit, Mode

CHUNK = "chunk:"  # begins the id of a passage that came by itself, not in a file
_TRIES = 6  # some half a minute, in which an embedding model may still be loading


class VectorStores:
    """The vector stores of a server; `stack.parts["vector_stores"]`.

    Args:
        stack: that keeps them.
        loop: that it runs in.
        patience: seconds for which an attachment is answered only when it is indexed; small files need no second look.
    """

    def __init__(self, stack: Stack, loop: asyncio.AbstractEventLoop, patience: float = 2.0) -> None:
        self._stack, self._patience = stack, patience
        self.records = Records(stack.store, uploads_of(stack), queue_of(stack))
        self.indexes = Indexes(stack.files.folder.parent / "vector_stores", stack, loop)
        queue = queue_of(stack)
        self._indexer = Worker(queue, records.INDEX, self._index, self._gave_up, parallel=2, tries=_TRIES)
        self._sweeper = Worker(queue, records.SWEEP, self._sweep, _leave, parallel=1, poll=10.0)

    def start(self) -> None:
        self._stack.background(self._indexer.run())
        self._stack.background(self._sweeper.run())

    def close(self) -> None:
        self.indexes.close()

    def wake(self) -> None:
        """Says that files were attached or detached."""
        self._indexer.wake()

    async def attach(self, owner: str, store_id: str, entry: Entry) -> Record:
        """Attaches a file; it may be indexed already when this returns, or be still in progress."""
        record = await run(self.records.attach, owner, store_id, entry)
        return await self._settled(record, lambda now: now.data["status"] != "in_progress")

    async def create(self, owner: str, settings: Mapping[str, Any], entries: Sequence[Entry]) -> Record:
        """A new store, whose files may be indexed already when this returns."""
        record = await run(self.records.create, owner, settings, entries)
        return await self._settled(record, lambda now: not now.data["counts"]["in_progress"])

    async def _settled(self, record: Record, holds: Callable[[Record], bool]) -> Record:
        """A record as soon as something holds of it, or when patience is at its end."""
        self.wake()
        until, pause = time.monotonic() + self._patience, 0.01
        while not holds(record) and time.monotonic() < until:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.2)
            now = await run(self._stack.store.get, record.kind, record.id, record.owner)
            if now is None:
                break  # it was deleted meanwhile
            record = now
        return record

    async def delete(self, owner: str, store_id: str) -> None:
        await run(self.records.delete, owner, store_id)
        await run(self.indexes.drop, store_id)
        self._sweeper.wake()

    async def detach(self, owner: str, store_id: str, file_id: str) -> bool:
        """Takes a file out of a store; returns whether it was there."""
        there = await run(self.records.detach, owner, store_id, file_id)
        if there:
            await run(self.indexes.delete, store_id, file_id)
            self.wake()  # once more, for one that was just being indexed
        return there

    async def set_attributes(self, owner: str, store_id: str, file_id: str, attributes: Mapping[str, Any]) -> Record:
        record = await run(self.records.set_attributes, owner, store_id, file_id, attributes)
        await run(self.indexes.set_attributes, store_id, file_id, attributes)
        self.wake()
        return record

    # Search -----------------------------------------------------------------------------------------------------------

    async def search(
        self,
        owner: str,
        vector_store_ids: Sequence[str],
        queries: Sequence[str],
        limit: int = 10,
        filters: Mapping[str, Any] | None = None,
        *,
        mode: Mode = "hybrid",
        threshold: float = 0.0,
    ) -> list[dict[str, Any]]:
        """The passages that fit best, of several stores.

        Args:
            owner: whose stores.
            vector_store_ids: which.
            queries: ways to ask one question.
            limit: passages.
            filters: on attributes, in OpenAI's form.
            mode: how is ranked.
            threshold: the least score, from 0 to 1.

        Returns:
            file_id, filename, score, text, attributes, start and end in the file's text, and document_id, the name in
            the index; best first.

        Raises:
            ApiError: 404 for a store that is not there, 400 for one that has expired or a filter that is none.
        """
        wanted = [query for query in queries if query.strip()]
        if not wanted:
            raise invalid("The query is empty.", "query")
        found: list[list[Hit]] = []
        what = {"gen_ai.operation.name": "retrieval", "gen_ai.request.top_k": limit, "puna.retrieval.mode": mode}
        with spans.carried(spans.begin("retrieval vector stores", what)) as span:
            for store_id in dict.fromkeys(vector_store_ids):
                search = partial(self._search, owner, store_id, wanted, limit)
                found.append(await run(search, filters=filters, mode=mode, threshold=threshold))
            hits = [hit for hit in merge(found, fused=mode == "hybrid")[:limit] if hit.score >= threshold]
            if span is not None:
                # Only now is it sure that these are names of stores, and not just anything.
                span.set({"gen_ai.data_source.id": ",".join(vector_store_ids), "puna.retrieval.passages": len(hits)})
        return [_found(hit) for hit in hits]

    def _search(self, owner: str, store_id: str, queries: Sequence[str], limit: int, **how: Any) -> list[Hit]:
        record = self.records.get(owner, store_id, usable=True)
        self.records.touch(record)
        model = record.data["embedding_model"]
        hits = self.indexes.search(store_id, model, queries, limit, **how)
        return [hit for hit in hits if self._is_kept(owner, store_id, hit)]

    def _is_kept(self, owner: str, store_id: str, hit: Hit) -> bool:
        """Whether a passage is the caller's own, or its file was not detached just now."""
        return hit.document_id.startswith(CHUNK) or self.records.has_file(owner, store_id, hit.document_id)

    # Work in the background -------------------------------------------------------------------------------------------

    async def _index(self, work: Work) -> None:
        """Makes the index say what the file's record says."""
        store_id, _, file_id = work.id.partition(":")
        record = await run(self._stack.store.get, records.FILE, work.id, work.owner)
        status = record.data["status"] if record else "detached"
        if await run(self._stack.store.get, records.STORE, store_id, work.owner) is None:
            await run(self.indexes.drop, store_id)  # it was deleted while its files were being indexed
        elif record is not None and status == "in_progress":
            await run(self._read_and_put, work, record)
        elif record is not None and status == "completed":
            await run(self.indexes.set_attributes, store_id, file_id, record.data["attributes"])
        else:
            await run(self.indexes.delete, store_id, file_id)

    def _read_and_put(self, work: Work, record: Record) -> None:
        store = self._stack.store.get(records.STORE, record.parent, work.owner)
        upload = self.records.files.find(work.owner, record.data["file_id"])
        if store is None:
            return
        if upload is None:
            self.records.finish(work, "failed", {"code": "invalid_file", "message": "The file was deleted."})
            return
        try:
            document = read_text(self._stack.files.read(upload.id), upload.id, upload.data["filename"])
        except UnreadableError as error:
            self.records.finish(work, "failed", {"code": error.code, "message": error.message})
            return
        chars, overlap = record.data["chunking"]
        attributes = record.data["attributes"]
        self.indexes.put(store.id, store.data["embedding_model"], document, attributes, (chars, overlap))
        if not self.records.finish(work, "completed", size=len(document.text.encode())):
            self._undo(work, store.id)

    def _undo(self, work: Work, store_id: str) -> None:
        """Takes back what was indexed while the store was deleted; other changes come with the next turn."""
        if self._stack.store.get(records.STORE, store_id, work.owner) is None:
            self.indexes.drop(store_id)

    async def _gave_up(self, work: Work, error: Exception) -> None:
        # What is told is what a client would be told: a defect's text stays in the log.
        failed = {"code": "server_error", "message": as_api_error(error).message}
        await run(self.records.finish, work, "failed", failed)

    async def _sweep(self, work: Work) -> None:
        if await run(self.records.sweep, work):
            await run(self.indexes.drop, work.id)


async def _leave(work: Work, error: Exception) -> None:
    """An index that cannot be deleted stays on the disk; the log says so."""
    del work, error


def _found(hit: Hit) -> dict[str, Any]:
    own = hit.document_id.startswith(CHUNK)  # a passage that the caller put in says itself what it is of
    of = str(hit.attributes.get("document_id") or hit.document_id.removeprefix(CHUNK)) if own else hit.document_id
    return {
        "file_id": of,
        "document_id": hit.document_id,
        "filename": hit.source,
        "score": hit.score,
        "text": hit.text,
        "attributes": dict(hit.attributes),
        "start": hit.start,
        "end": hit.end,
    }
