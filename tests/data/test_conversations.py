"""Conversations and tasks: quoted, balanced, the same for the same documents."""

from __future__ import annotations

import json
import random
import shutil
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from puna.base.errors import ArtifactError, ConfigError
from puna.base.files import write_jsonl
from puna.core.chat import Conversation, Message
from puna.core.document import Document
from puna.data import corpus
from puna.data.conversations import (
    UNANSWERABLE,
    QuestionConfig,
    build_conversations,
    build_tasks,
    read_conversations,
    write_conversations,
)
from puna.knowledge.grounding import NOT_IN_TEXT

MODULES = (
    "shutil.py",
    "heapq.py",
    "textwrap.py",
    "bisect.py",
    "fnmatch.py",
    "queue.py",
    "contextlib.py",
    "calendar.py",
)


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """A few modules of the standard library, and a guide in Markdown."""
    folder = tmp_path_factory.mktemp("library")
    for name in MODULES:
        shutil.copy(Path(sysconfig.get_path("stdlib"), name), folder)
    steps = "".join(f"{i}. Open the {name} box.\n" for i, name in enumerate(("red", "green", "blue"), 1))
    (folder / "guide.md").write_text(
        f"# Box guide\n\nA box is a thing that holds other things.\n\n## Opening all boxes\n\n{steps}\n"
        "## Colours of boxes\n\nBoxes come in three colours. More text here.\n\n"
        "To paint a box, run:\n\n```\npaint --box red\n```\n\n- **Lid**: the part on top of a box.\n"
    )
    return corpus.read_folder(folder)[0]


@pytest.fixture(scope="module")
def conversations(documents: list[Document]) -> list[Conversation]:
    return build_conversations(documents, QuestionConfig(), seed=0)


def test_every_quotation_stands_in_its_document_and_in_the_prompt(documents, conversations):
    texts = {document.id: document.text for document in documents}
    for conversation in conversations:
        meta = conversation.meta
        answers = [message.content for message in conversation.messages if message.role == "assistant"]
        assert len(answers) == len(meta["spans"]) == len(meta["kinds"])
        start, end = meta["passage"]
        assert texts[meta["document_id"]][start:end].strip() in conversation.messages[0].content
        for answer, span, kind in zip(answers, meta["spans"], meta["kinds"], strict=True):
            if span is None:
                assert (answer, kind) == (NOT_IN_TEXT, UNANSWERABLE)
            else:
                assert texts[meta["document_id"]][span[0] : span[1]] == answer
                assert start <= span[0] < span[1] <= end


def test_turns_alternate_and_only_the_first_shows_the_passage(conversations):
    several = [c for c in conversations if len(c.meta["kinds"]) > 1]
    assert several
    for conversation in conversations:
        roles = [message.role for message in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert conversation.messages[0].content.startswith(f"[{conversation.meta['source']}")
        assert not any(m.content.startswith("[") for m in conversation.messages[2::2])
        assert len(roles) <= 6


def test_many_kinds_of_questions_are_asked(conversations):
    kinds = Counter(kind for conversation in conversations for kind in conversation.meta["kinds"])
    assert {"function", "parameters", "default", "definition", "step", "section", "command", "term"} <= set(kinds)
    assert sum(kinds.values()) > 150


def test_the_share_without_an_answer_is_kept_and_such_questions_cannot_be_answered(documents):
    for share in (0.0, 0.15, 0.4):
        tasks = build_tasks(documents, QuestionConfig(unanswerable=share), 0)
        missing = [task for task in tasks if task.kind == UNANSWERABLE]
        assert abs(len(missing) / len(tasks) - share) < 0.02
        assert all(task.answer == NOT_IN_TEXT and task.meta["spans"] == [None] for task in missing)


def test_the_same_seed_gives_the_same_whatever_the_order_and_another_seed_does_not(documents, conversations):
    shuffled = list(documents)
    random.Random(1).shuffle(shuffled)
    assert build_conversations(shuffled, QuestionConfig(), 0) == conversations
    assert build_conversations(documents, QuestionConfig(), 1) != conversations


def test_questions_on_a_document_do_not_depend_on_the_other_documents(documents):
    config = QuestionConfig(unanswerable=0, follow_ups=0)
    everything = build_tasks(documents, config, 0)
    for document in documents[:3]:
        alone = {task.id for task in build_tasks([document], config, 0)}
        together = {task.id for task in everything if task.meta["document_id"] == document.id}
        assert len(alone & together) >= 0.9 * len(together)


def test_caps_hold(documents):
    tasks = build_tasks(documents, QuestionConfig(per_document=5, unanswerable=0), 0)
    assert max(Counter(task.meta["document_id"] for task in tasks).values()) <= 5
    assert len(build_tasks(documents, QuestionConfig(limit=7, unanswerable=0), 0)) == 7


def test_one_answer_does_not_fill_a_kind():
    text = "".join(f"def f{i}(first=None, second{i}='{i:03}'): pass\n\n\n" for i in range(300))
    document = Document(text, "id", "many.py", meta={"kind": "python"})
    config = QuestionConfig(unanswerable=0, per_document=1000)
    defaults = [task.answer for task in build_tasks([document], config, 0) if task.kind == "default"]
    assert 0 < defaults.count("None") <= 0.1 * len(defaults)


def test_one_kind_does_not_fill_a_large_corpus(monkeypatch: pytest.MonkeyPatch, documents):
    monkeypatch.setattr("puna.data.conversations._FEW", 10)
    kinds = Counter(task.kind for task in build_tasks(documents, QuestionConfig(kind_share=0.1, unanswerable=0), 0))
    everything = len(build_tasks(documents, QuestionConfig(kind_share=1, unanswerable=0), 0))
    assert max(kinds.values()) <= 0.1 * everything + 1


def test_a_second_passage_does_not_answer(documents):
    tasks = build_tasks(documents, QuestionConfig(distractors=1.0, passage_chars=400), 0)
    heads = [task.prompt.count(f"[{task.meta['source']}") for task in tasks]
    assert heads.count(2) > 0.5 * len(tasks)
    first = sum(task.prompt.startswith(f"[{task.meta['source']}") for task in tasks)
    assert first == len(tasks)


def test_tasks_are_the_questions_one_by_one(documents):
    tasks = build_tasks(documents, QuestionConfig(), 0)
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        assert task.prompt.endswith(task.meta["question"])
        assert task.kind


def test_documents_without_questions_give_none():
    assert build_conversations([Document("la la la\n", "1", "a.txt", meta={"kind": "text"})], QuestionConfig(), 0) == []
    assert build_tasks([], QuestionConfig(), 0) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unanswerable", 1.0),
        ("follow_ups", 1.5),
        ("kind_share", 0.0),
        ("passage_chars", 10),
        ("turns", 0),
        ("limit", -1),
    ],
)
def test_a_config_out_of_range_is_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=field):
        QuestionConfig(**{field: value})


def test_conversations_come_back_from_disk(tmp_path: Path, conversations):
    assert write_conversations(tmp_path / "c.jsonl", conversations) == len(conversations)
    assert read_conversations(tmp_path / "c.jsonl") == conversations


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "its roles are none"),
        ({"messages": [{"role": "user", "content": "x"}]}, "its roles are user"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "role 'boss'"),
        ({"msgs": []}, "messages"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]}, "an answer is empty"),
        (
            {"messages": [{"role": r, "content": "x"} for r in ("user", "user", "assistant")]},
            "two messages of the user follow each other",
        ),
        (
            {"messages": [{"role": r, "content": "x"} for r in ("user", "system", "assistant")]},
            "a system message stands after the first place",
        ),
    ],
)
def test_a_row_that_is_no_conversation_is_named_by_its_number(tmp_path: Path, row: dict, reason: str):
    good = Conversation((Message("user", "a"), Message("assistant", "b"))).to_json()
    lines = [json.dumps(good), "", json.dumps(row)]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    with pytest.raises(ArtifactError) as raised:
        read_conversations(tmp_path / "c.jsonl")
    assert "line 3" in raised.value.message
    assert reason in raised.value.message


def test_a_broken_line_and_a_missing_file_are_named(tmp_path: Path):
    (tmp_path / "c.jsonl").write_text('{"messages": [\n')
    with pytest.raises(ArtifactError, match="line 1"):
        read_conversations(tmp_path / "c.jsonl")
    with pytest.raises(ArtifactError, match="no file"):
        read_conversations(tmp_path / "nowhere.jsonl")


def test_tool_conversations_of_others_are_read(tmp_path: Path):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = {
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1", "tool_call_id": "1"},
            {"role": "assistant", "content": "one"},
        ]
    }
    write_jsonl(tmp_path / "c.jsonl", [row])
    (conversation,) = read_conversations(tmp_path / "c.jsonl")
    assert conversation.messages[1].content == "q"
    assert conversation.messages[2].tool_calls[0].name == "f"
