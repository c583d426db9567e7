"""The search index of each vector store: a `Library` in a file of its own, opened when it is first used.

Everything here blocks and is called from worker threads. Vectors come from the server's own embedding models, which are
asynchronous: the event loop makes them while the thread waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from puna.base.errors import ResourceError
from puna.core.document import Document
from puna.stack.context import Stack
from puna.stack.errors import ApiError

if TYPE_CHECKING:
    from puna.knowledge.library import Hit, Library, Mode

_OPEN = 64  # indexes that wait for their next use
DEFAULT_CUT = 800, 0


@dataclass(slots=True)
class _Opened:
    library: Library
    users: int = 0
    dropped: bool = False


class Indexes:
    """The indexes of all vector stores.

    Args:
        folder: of their files.
        stack: whose embedding models are used.
        loop: that these run in.
    """

    def __init__(self, folder: Path, stack: Stack, loop: asyncio.AbstractEventLoop) -> None:
        self.folder, self._stack, self._loop = folder, stack, loop
        self._opened: OrderedDict[tuple[str, str], _Opened] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def default_model(self) -> str:
        """The embedding model of a store for which none was named; "" where the server has none."""
        return next((id for id, (_, info) in self._stack.models.items() if info.type == "embedding"), "")

    def dimensions(self, model: str) -> int:
        """The length of a model's vectors; 0 where nobody says."""
        found = self._stack.models.get(model)
        return found[1].dimensions if found else 0

    def put(
        self, store_id: str, model: str, document: Document, attributes: Mapping[str, Any], cut: tuple[int, int]
    ) -> None:
        """Indexes a document, in the place of the one with its id.

        Args:
            store_id: where.
            model: that embeds; "" for none.
            document: what.
            attributes: to filter by.
            cut: length and overlap of passages in characters.

        Raises:
            ApiError: the model is not there.
        """
        if model:
            self._stack.model(model, "embedding")
        if cut == DEFAULT_CUT:
            with self._using(store_id, model) as library:
                library.put(document, attributes)
            return
        with self._make(store_id, model, cut) as library:
            library.put(document, attributes)

    def delete(self, store_id: str, document_id: str) -> None:
        if self.exists(store_id):
            with self._using(store_id, "") as library:
                library.delete(document_id)

    def set_attributes(self, store_id: str, document_id: str, attributes: Mapping[str, Any]) -> None:
        if self.exists(store_id):
            with self._using(store_id, "") as library:
                library.set_attributes(document_id, attributes)

    def document(self, store_id: str, document_id: str) -> Document | None:
        if not self.exists(store_id):
            return None
        with self._using(store_id, "") as library:
            return library.document(document_id)

    def search(
        self,
        store_id: str,
        model: str,
        queries: Sequence[str],
        limit: int,
        *,
        filters: Mapping[str, Any] | None = None,
        mode: Mode = "hybrid",
        threshold: float = 0.0,
    ) -> list[Hit]:
        """The best passages; by words alone while the store's embedding model is away."""
        if not self.exists(store_id):
            return []
        try:
            self._stack.model(model, "embedding")
        except ApiError:
            model = ""
        with self._using(store_id, model) as library:
            return library.search(list(queries), limit, filters=filters, mode=mode, score_threshold=threshold)

    def exists(self, store_id: str) -> bool:
        return self._path(store_id).exists()

    def drop(self, store_id: str) -> None:
        """Deletes an index."""
        with self._lock:
            for key in [key for key in self._opened if key[0] == store_id]:
                self._put_away(self._opened.pop(key))
        path = self._path(store_id)
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            for opened in self._opened.values():
                self._put_away(opened)
            self._opened.clear()

    def _path(self, store_id: str) -> Path:
        return self.folder / f"{store_id}.db"

    @contextmanager
    def _using(self, store_id: str, model: str) -> Iterator[Library]:
        with self._lock:
            opened = self._opened.get((store_id, model))
            if opened is None:
                opened = self._opened[store_id, model] = _Opened(self._make(store_id, model, DEFAULT_CUT))
            self._opened.move_to_end((store_id, model))
            opened.users += 1
            idle = [key for key, other in self._opened.items() if not other.users]
            for key in idle[: max(0, len(self._opened) - _OPEN)]:
                self._put_away(self._opened.pop(key))
        try:
            yield opened.library
        finally:
            with self._lock:
                opened.users -= 1
                if opened.dropped:
                    self._put_away(opened)

    def _put_away(self, opened: _Opened) -> None:
        """Closes an index, now or when its last user is done; `_lock` is held."""
        opened.dropped = True
        if not opened.users:
            opened.library.close()

    def _make(self, store_id: str, model: str, cut: tuple[int, int]) -> Library:
        from puna.knowledge.library import Library, LibraryConfig

        config = LibraryConfig(chunk_chars=cut[0], overlap_chars=cut[1], embedder=model)
        return Library(self._path(store_id), self._embedder(model), config)

    def _embedder(self, model: str) -> Callable[[Sequence[str]], Sequence[Sequence[float]]] | None:
        if not model:
            return None

        def embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
            provider, info = self._stack.model(model, "embedding")
            future = asyncio.run_coroutine_threadsafe(provider.embed(info.id, list(texts)), self._loop)
            # A thread that waited for a loop which has ended would keep the process from ending.
            while not concurrent.futures.wait([future], timeout=0.5).done:
                if self._closed.is_set():
                    future.cancel()
                    raise ResourceError("The server stops.", hint="The work goes on when it starts again.")
            return future.result()

        return embed
