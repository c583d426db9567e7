"""Questions: the training documents become conversations to learn from, the held-out ones questions to be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from puna.base.files import read_jsonl, write_jsonl
from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import QuestionConfig, build_conversations, build_tasks, write_conversations
from puna.recipes.runner import StageContext
from puna.recipes.stages.split import HELD_OUT, TRAIN

CONVERSATIONS = "conversations.jsonl"
TASKS = "tasks.jsonl"


def make_questions(context: StageContext, config: QuestionConfig, seed: int) -> Mapping[str, Any]:
    train = corpus.read(context.inputs["split"] / TRAIN)
    conversations = build_conversations(train, config, seed)
    tasks = build_tasks(corpus.read(context.inputs["split"] / HELD_OUT), config, seed)
    write_conversations(context.folder / CONVERSATIONS, conversations)
    write_jsonl(context.folder / TASKS, (asdict(task) for task in tasks))
    return {
        "conversations": len(conversations),
        "tasks": len(tasks),
        "kinds": dict(Counter(task.kind for task in tasks).most_common()),
    }


def load_tasks(context: StageContext) -> list[Task]:
    return [Task(**row) for row in read_jsonl(context.inputs["questions"] / TASKS)]
