"""The reader: which span of a passage answers a question is learnt from the run's own training questions.

No held-out document is looked at: not for its questions, and a passage of one that a look-up finds is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from puna.core.chat import Conversation
from puna.core.document import Document
from puna.data import corpus
from puna.data.conversations import read_conversations
from puna.knowledge.chunk import Passage, chunk
from puna.knowledge.index import PassageIndex
from puna.reader.evidence import arrange, read_question
from puna.reader.ranker import Example, RankerConfig, fit
from puna.recipes.reading import LOOKED_UP
from puna.recipes.runner import StageContext
from puna.recipes.stages.questions import CONVERSATIONS
from puna.recipes.stages.split import TRAIN

RANKER = "ranker"
Lookup = Callable[[str], Sequence[Passage]]


@dataclass(frozen=True, slots=True)
class ReaderConfig:
    """How a run's reader is made.

    Attributes:
        ranker: how the spans' scores are fitted.
        passages: that such a question is asked of.
        looked_up: share of the questions that are learnt from with the passages that a look-up finds; the others are
            asked of their own passage alone.
    """

    ranker: RankerConfig = field(default_factory=RankerConfig)
    passages: int = 3
    looked_up: float = 0.4


def make_reader(context: StageContext, config: ReaderConfig, passage_chars: int) -> Mapping[str, Any]:
    """Fits the ranker and saves it."""
    conversations = read_conversations(context.inputs["questions"] / CONVERSATIONS)
    documents = corpus.read(context.inputs["split"] / TRAIN)
    index = PassageIndex(context.inputs["index"] / "passages")
    trained = {document.id for document in documents}

    def lookup(question: str) -> list[Passage]:
        return [passage for passage, _ in index.search(question, LOOKED_UP) if passage.document_id in trained]

    with context.progress.task("read training questions", config.ranker.examples, "questions") as bar:
        examples = build_examples(conversations, documents, lookup, config, passage_chars)
        ranker = fit(examples, config.ranker, bar.advance)
    if ranker is None:
        context.progress.say("no training question has its answer among the spans: the model will write its answers")
        return {"examples": 0}
    ranker.save(context.folder / RANKER)
    return {
        "examples": min(len(examples), config.ranker.examples),
        "grams": len(ranker.grams),
        "signs": len(ranker.known),
    }


def build_examples(
    conversations: Iterable[Conversation],
    documents: Iterable[Document],
    lookup: Lookup,
    config: ReaderConfig,
    passage_chars: int,
) -> list[Example]:
    """The run's training questions, as many as the ranker learns from, drawn by its seed."""
    asked = [turn for conversation in conversations for turn in _turns(conversation)]
    draws = np.random.default_rng(config.ranker.seed)
    chosen = [asked[i] for i in draws.permutation(len(asked))[: config.ranker.examples]]
    wanted = {turn.document_id for turn in chosen}
    at = {
        (passage.document_id, passage.start): passage
        for document in documents
        if document.id in wanted
        for passage in chunk(document, passage_chars)
    }
    examples = []
    for turn in chosen:
        passage = at.get((turn.document_id, turn.passage[0]))
        if passage is not None and passage.end == turn.passage[1]:
            passages = [passage]
            if draws.random() < config.looked_up:
                passages = _found(turn, passage, lookup, config.passages)
            place = None if turn.span is None else (passages.index(passage), *turn.span)
            examples.append(Example(turn.question, turn.earlier, tuple(passages), place))
    return examples


@dataclass(frozen=True, slots=True)
class _Turn:
    """A question of a conversation: what was asked before it, where its passage is, and where the answer stands."""

    question: str
    earlier: str
    document_id: str
    passage: tuple[int, int]
    span: tuple[int, int] | None


def _turns(conversation: Conversation) -> Iterator[_Turn]:
    """None for a conversation that quotes nothing, such as a teacher's."""
    meta = conversation.meta
    if "spans" not in meta or "passage" not in meta or "document_id" not in meta:
        return
    earlier = ""
    asked = [message.content for message in conversation.messages if message.role == "user"]
    for i, (words, span) in enumerate(zip(asked, meta["spans"], strict=False)):
        question = words.rsplit("\n\n", 1)[-1] if i == 0 else words
        place = None if span is None else (int(span[0]), int(span[1]))
        yield _Turn(question, earlier, str(meta["document_id"]), tuple(meta["passage"]), place)
        earlier = question


def _found(turn: _Turn, passage: Passage, lookup: Lookup, count: int) -> list[Passage]:
    """What a look-up finds, with the passage that the question is about among it.

    A passage beside one that does not answer must not answer either: those that mention the subject are left out.
    """
    query = read_question(turn.question, turn.earlier)
    found = list(lookup(f"{turn.earlier} {turn.question}" if turn.earlier else turn.question))
    if turn.span is None:
        found = [other for other in found if not query.names & set(re.findall(r"\w+", other.text.lower()))]
    found = arrange(query, found, count)
    if passage not in found:
        found = [*found[: count - 1], passage]
    return found
