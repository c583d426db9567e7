"""An optional teacher in a recipe: a model behind an OpenAI-compatible URL writes more questions about the documents.

The default needs none. What the teacher says is kept only where it quotes the passage (`data/teacher.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from puna.base.config import require
from puna.base.progress import Progress
from puna.core.chat import Conversation
from puna.core.document import Document
from puna.data.teacher import TeacherConfig, teach
from puna.engine.remote import RemoteConfig, RemoteModel
from puna.knowledge.chunk import chunk


@dataclass(frozen=True, slots=True)
class TeachingConfig:
    """Who teaches, and how much.

    Attributes:
        url: of the server, up to and with its version: "http://127.0.0.1:8000/v1".
        model: the name under which it offers the model.
        api_key_env: the environment variable that holds the key.
        questions: written on a passage.
        passages: asked about, at most; 0 for all.
        concurrency: requests under way at a time.
    """

    url: str
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    questions: int = 4
    passages: int = 1000
    concurrency: int = 8

    def __post_init__(self) -> None:
        require(self.passages >= 0, f"passages is {self.passages}; it must be at least 0 (0 for all).")


def taught_conversations(
    documents: Sequence[Document], passage_chars: int, config: TeachingConfig, cache: Path, progress: Progress
) -> tuple[list[Conversation], dict[str, Any]]:
    """The teacher's conversations, and what came of asking. Answers are kept in `cache`, so nothing is asked twice."""
    passages = [passage for document in documents for passage in chunk(document, passage_chars)]
    # Spread over the corpus rather than taken from its beginning.
    step = max(1, len(passages) // config.passages) if config.passages else 1
    chosen = passages[::step][: config.passages or None]
    model = RemoteModel(RemoteConfig(config.url, config.model, config.api_key_env, concurrency=config.concurrency))
    teaching = TeacherConfig(config.model, questions=config.questions, concurrency=config.concurrency)
    conversations, report = teach(model, chosen, teaching, cache, progress)
    progress.say(f"teacher: {report.kept:,} questions kept, {sum(report.refused.values()):,} refused")
    return conversations, asdict(report)
