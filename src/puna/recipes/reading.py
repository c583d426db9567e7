"""A run's reader: its index, its ranker and its model, put together; for chat, the server and the evaluation.

Like `run_folder` it imports no stage.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from puna.core.protocols import ChatModel
from puna.core.verdict import Task
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import grounded_prompt
from puna.knowledge.index import PassageIndex
from puna.reader.ranker import Ranker
from puna.reader.reading import Lookup, Reader
from puna.recipes.run_folder import index_folder, is_run

RANKER = "reader/ranker"
LOOKED_UP = 50


def open_reader(path: Path | str, model: ChatModel | None, lookup: Lookup | None = None) -> Reader | None:
    """The reader of a run; None where the run has no index of its documents.

    Args:
        path: of the run.
        model: it writes the answers where the run has no ranker; None where it has one.
        lookup: finds the passages; None looks them up in the run's index. Any thread may ask.
    """
    if lookup is None:
        folder = index_folder(path)
        if folder is None:
            return None
        lookup = _lookup_in(folder)
    return Reader(model, lookup, ranker_of(path))


def ranker_of(path: Path | str) -> Ranker | None:
    """The ranker of a run, where it has one."""
    folder = Path(path).expanduser() / RANKER
    return Ranker.load(folder) if is_run(path) and folder.exists() else None


def lookup_of(index: PassageIndex, count: int = LOOKED_UP) -> Lookup:
    """The best passages of an index."""
    return lambda question: [passage for passage, _ in index.search(question, count)]


def _lookup_in(folder: Path) -> Lookup:
    """Looks up in the index of a folder, which each thread opens for itself: SQLite's connections are for one."""
    threads = threading.local()
    PassageIndex(folder).close()  # a damaged index is told of now

    def lookup(question: str) -> Sequence[Passage]:
        if not hasattr(threads, "lookup"):
            threads.lookup = lookup_of(PassageIndex(folder))
        return threads.lookup(question)

    return lookup


def passages_of(task: Task, passages: Sequence[Passage]) -> list[Passage]:
    """The passages that a task's prompt shows, out of those of its documents; none where it shows others too."""
    shown, rest = [], task.prompt
    question = str(task.meta.get("question", ""))
    while rest != question:
        for passage in passages:
            block = grounded_prompt("", [passage])
            if rest.startswith(block):
                shown.append(passage)
                rest = rest[len(block) :]
                break
        else:
            return []
    return shown
