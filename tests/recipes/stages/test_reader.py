"""The reader's stage: it learns from training questions, and what it makes answers held-out ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from puna.base.files import read_jsonl, write_jsonl
from puna.base.progress import MetricsLog, Silent
from puna.core.chat import Conversation, Message
from puna.core.verdict import Task
from puna.data import corpus
from puna.data.conversations import read_conversations
from puna.evals.answers import exact_match
from puna.knowledge.chunk import Passage, chunk
from puna.knowledge.grounding import NOT_IN_TEXT
from puna.reader.ranker import Ranker, RankerConfig
from puna.recipes.reading import passages_of
from puna.recipes.runner import StageContext
from puna.recipes.stages.questions import CONVERSATIONS, TASKS
from puna.recipes.stages.reader import RANKER, ReaderConfig, build_examples, make_reader

CONFIG = ReaderConfig(RankerConfig(epochs=12, least=1))
CHARS = 200  # of a passage of the tiny recipe


def context(run: Path, folder: Path, **inputs: Path) -> StageContext:
    folder.mkdir(exist_ok=True)
    stages = {name: run / name for name in ("split", "questions", "index")} | inputs
    return StageContext(folder, stages, Silent(), MetricsLog(folder / "metrics.jsonl"), run)


@pytest.fixture(scope="module")
def made(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    metrics = make_reader(context(finished_run, folder), CONFIG, CHARS)
    assert metrics["examples"] > 20
    return folder


def test_held_out_questions_are_answered_better_than_by_chance(finished_run: Path, made: Path) -> None:
    ranker = Ranker.load(made / RANKER)
    held_out = [p for document in corpus.read(finished_run / "split" / "held_out") for p in chunk(document, CHARS)]
    tasks = [Task(**row) for row in read_jsonl(finished_run / "questions" / TASKS)]
    right = []
    for task in tasks:
        shown = passages_of(task, [p for p in held_out if p.document_id == task.meta["document_id"]])
        best = ranker.rank(str(task.meta["question"]), shown)[0]
        answer = NOT_IN_TEXT if best.passage < 0 else shown[best.passage].text[best.start : best.end]
        right.append(exact_match(answer, task.answer))
    assert sum(right) > 0.6 * len(right)


def test_every_example_holds_its_answer_where_it_says(finished_run: Path) -> None:
    conversations = read_conversations(finished_run / "questions" / CONVERSATIONS)
    documents = corpus.read(finished_run / "split" / "train")
    texts = {document.id: document.text for document in documents}
    answers = {m.content for c in conversations for m in c.messages if m.role == "assistant"} - {NOT_IN_TEXT}
    other = Passage("elsewhere", "x.py", 0, 4, "", "x = 1")
    examples = build_examples(conversations, documents, lambda _: [other], CONFIG, CHARS)
    alone = [example for example in examples if len(example.passages) == 1]
    assert len(examples) > len(alone) > 0
    for example in examples:
        if example.place is not None:
            number, start, end = example.place
            passage = example.passages[number]
            assert passage.start <= start < end <= passage.end
            assert texts[passage.document_id][start:end] in answers


def test_a_question_that_nothing_answers_is_not_asked_beside_a_passage_that_does(finished_run: Path) -> None:
    conversations = read_conversations(finished_run / "questions" / CONVERSATIONS)
    documents = corpus.read(finished_run / "split" / "train")
    whole = [Passage(d.id, d.source, 0, len(d.text), "", d.text) for d in documents]
    examples = build_examples(conversations, documents, lambda _: whole, ReaderConfig(looked_up=1.0), CHARS)
    absent = [example for example in examples if example.place is None]
    assert absent
    for example in absent:
        words = [word.strip("`?.()") for word in example.question.split()]
        names = [word.rsplit(".", 1)[-1] for word in words if "_" in word]
        for name in names:
            assert all(name not in passage.text for passage in example.passages)


def test_a_teachers_conversations_alone_make_no_reader(finished_run: Path, tmp_path: Path) -> None:
    taught = Conversation((Message("user", "Why?"), Message("assistant", "Because.")))
    (tmp_path / "questions").mkdir()
    write_jsonl(tmp_path / "questions" / CONVERSATIONS, [taught.to_json()])
    made = make_reader(context(finished_run, tmp_path, questions=tmp_path / "questions"), CONFIG, CHARS)
    assert made == {"examples": 0}
    assert not (tmp_path / RANKER).exists()
