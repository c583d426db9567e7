"""A run's reader: its index, its encoder, its ranker and its model, put together; for chat, the server, the evaluation.

Passages are looked up by words alone, or by words and vectors where the run has found that to be better: for a model
that writes from the passage that comes first, and for a ranker that chooses among several, each by its own measure.
Like `run_folder` it imports no stage.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from puna.base.device import fast_dtype, resolve_device
from puna.base.files import read_json
from puna.core.protocols import ChatModel
from puna.core.verdict import Task
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import grounded_prompt
from puna.knowledge.hybrid import HybridIndex, PassageVectors
from puna.knowledge.index import PassageIndex
from puna.reader.ranker import Ranker
from puna.reader.reading import Lookup, Reader
from puna.recipes.run_folder import CHECKPOINT, index_folder, is_run

if TYPE_CHECKING:
    from puna.engine.encoder import Encoder

RANKER = "reader/ranker"
ENCODER = "encoder"
VECTORS, CHOICE = "vectors.npy", "choice.json"  # in the encoder's folder
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
        encoder = Path(path).expanduser() / ENCODER
        lookup = lookup_in(folder, encoder, vector_weight(encoder, quoting=ranker_of(path) is not None))
    return Reader(model, lookup, ranker_of(path))


def ranker_of(path: Path | str) -> Ranker | None:
    """The ranker of a run, where it has one."""
    folder = Path(path).expanduser() / RANKER
    return Ranker.load(folder) if is_run(path) and folder.exists() else None


def lookup_in(index: Path, encoder: Path, weight: float, count: int = LOOKED_UP) -> Lookup:
    """The best passages of an index, by words and by vectors.

    Any thread may ask: each opens the index for itself, since SQLite's connections are for one. The encoder is opened
    when the first question comes.

    Args:
        index: folder of the passages' index.
        encoder: folder of the encoder's stage.
        weight: of the ranking by vectors where that of words has 1; with 0 the encoder is not opened.
        count: of the passages, at most.
    """
    threads = threading.local()
    PassageIndex(index).close()  # a damaged index is told of now
    meaning = _Meaning(encoder, weight) if weight else None

    def lookup(question: str) -> Sequence[Passage]:
        if not hasattr(threads, "index"):
            words = PassageIndex(index)
            threads.index = meaning.beside(words) if meaning else words
        return [passage for passage, _ in threads.index.search(question, count)]

    return lookup


def vector_weight(encoder: Path, *, quoting: bool = False) -> float:
    """How much the vectors' ranking counts where that of words has 1; 0 where words alone are used.

    Args:
        encoder: folder of the encoder's stage; where there is none, words alone are used.
        quoting: whether a ranker chooses among the passages, or whoever takes the first of them.
    """
    path = encoder / CHOICE
    return float(read_json(path)["reader" if quoting else "lookup"]["weight"]) if path.exists() else 0.0


def open_encoder(folder: Path, device: str = "auto") -> Encoder:
    """The encoder of its stage's folder, in the dtype in which the passages were embedded."""
    from puna.engine.encoder import Encoder

    place = resolve_device(device)
    return Encoder.load(folder / CHECKPOINT, str(fast_dtype(place)).removeprefix("torch."), str(place))


class _Meaning:
    """The vectors and the encoder of a run, opened once for all threads."""

    def __init__(self, folder: Path, weight: float) -> None:
        self._folder, self._weight = folder, weight
        self._lock = threading.Lock()
        self._opened: tuple[PassageVectors, Encoder] | None = None

    def beside(self, words: PassageIndex) -> HybridIndex:
        with self._lock:
            if self._opened is None:
                self._opened = PassageVectors.load(self._folder / VECTORS), open_encoder(self._folder)
        vectors, encoder = self._opened
        return HybridIndex(words, vectors, encoder.vectors, self._weight)


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
