"""A run's documents as a server shows them: cited answers, and the texts that citations point into.

The index answers at once; the texts are read from the run when somebody first opens one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from puna.core.chat import Message
from puna.core.protocols import ChatModel
from puna.data import corpus
from puna.reader.reading import CitedAnswer, Reader
from puna.recipes.reading import open_reader, ranker_of

_PARTS = ("split/train", "split/held_out")


class RunDocuments:
    """Args:
    path: of the run.
    reader: of the run.
    """

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self.reader = reader

    @classmethod
    def of(cls, path: Path | str, model: ChatModel | None = None) -> RunDocuments | None:
        """Those of a run; None where it has no index, or neither a ranker nor a model that could answer."""
        path = Path(path).expanduser()
        if model is None and ranker_of(path) is None:
            return None
        reader = open_reader(path, model)  # type: ignore[arg-type]
        return cls(path, reader) if reader else None

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer:
        return self.reader.answer(question, history)

    def document(self, source: str) -> str | None:
        return self._texts.get(source)

    @cached_property
    def _texts(self) -> dict[str, str]:
        folders = [self.path / part for part in _PARTS if (self.path / part).exists()]
        return {document.source: document.text for folder in folders for document in corpus.read(folder)}
