"""Questions: the training documents become conversations to learn from, the held-out ones questions to be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from puna.base.files import read_jsonl, write_jsonl
from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import QuestionConfig, build_conversations, build_tasks, write_conversations
from puna.recipes.runner import StageContext
from puna.recipes.stages.split import HELD_OUT, TRAIN
from puna.recipes.teaching import TeachingConfig, taught_conversations

CONVERSATIONS = "conversations.jsonl"
TASKS = "tasks.jsonl"
# Beside the stages, so that it outlives a change of their settings.
TEACHER_CACHE = "teacher"


@dataclass(frozen=True, slots=True)
class QuestionsConfig:
    """What is asked of the documents.

    Attributes:
        built: from the structure of the text.
        teacher: a model that writes more; None for none.
        seed: of the choice.
    """

    built: QuestionConfig = field(default_factory=QuestionConfig)
    teacher: TeachingConfig | None = None
    seed: int = 0


def make_questions(context: StageContext, config: QuestionsConfig) -> Mapping[str, Any]:
    train = corpus.read(context.inputs["split"] / TRAIN)
    conversations = build_conversations(train, config.built, config.seed)
    taught: dict[str, Any] = {}
    if config.teacher:
        chars, cache = config.built.passage_chars, context.run_folder / TEACHER_CACHE
        more, taught = taught_conversations(train, chars, config.teacher, cache, context.progress)
        conversations += more
    tasks = build_tasks(corpus.read(context.inputs["split"] / HELD_OUT), config.built, config.seed)
    write_conversations(context.folder / CONVERSATIONS, conversations)
    write_jsonl(context.folder / TASKS, (asdict(task) for task in tasks))
    return {
        "conversations": len(conversations),
        "tasks": len(tasks),
        **({"teacher": taught} if taught else {}),
        "kinds": dict(Counter(task.kind for task in tasks).most_common()),
    }


def load_tasks(context: StageContext) -> list[Task]:
    return [Task(**row) for row in read_jsonl(context.inputs["questions"] / TASKS)]
