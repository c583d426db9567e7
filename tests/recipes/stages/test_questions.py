"""The stage that makes conversations and held-out questions."""

from __future__ import annotations

import json
from pathlib import Path

from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import read_conversations
from puna.knowledge.grounding import NOT_IN_TEXT


def test_every_answer_is_its_span_of_a_training_document(finished_run: Path) -> None:
    documents = {document.id: document for document in corpus.read(finished_run / "split" / "train")}
    conversations = read_conversations(finished_run / "questions" / "conversations.jsonl")
    assert conversations
    for conversation in conversations:
        answers = [message.content for message in conversation.messages if message.role == "assistant"]
        for answer, span in zip(answers, conversation.meta["spans"], strict=True):
            quoted = documents[conversation.meta["document_id"]].text[slice(*span)] if span else NOT_IN_TEXT
            assert answer == quoted


def test_tasks_are_about_held_out_documents(finished_run: Path) -> None:
    held_out = {document.id for document in corpus.read(finished_run / "split" / "held_out")}
    lines = (finished_run / "questions" / "tasks.jsonl").read_text().splitlines()
    tasks = [Task(**json.loads(line)) for line in lines]
    assert tasks
    assert {task.meta["document_id"] for task in tasks} <= held_out
