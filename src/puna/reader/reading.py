"""`Reader`: exact answers from documents, each of them a quotation with its place.

Passages are looked up, and the answer is one of their spans or the agreed sentence that they do not hold it; nothing
else can be said. With a `Ranker` (fitted on a run's own questions) the span is the one that scores best, which a small
model cannot match by writing. Without one, the model writes, held to the passages by a grammar of their words, and
what it wrote is found again in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from puna.base.errors import ConfigError
from puna.core.chat import Message
from puna.core.completion import Constraint, SamplingParams
from puna.core.document import Span
from puna.core.protocols import ChatModel
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT, grounded_prompt, says_not_in_text
from puna.reader.evidence import arrange, read_question
from puna.reader.ranker import Ranked, Ranker

Lookup = Callable[[str], Sequence[Passage]]
_TRACED = 5  # of the best candidates, in a trace
_MOST_TOKENS = 96


@dataclass(frozen=True, slots=True)
class CitedAnswer:
    """An answer and where it stands.

    Attributes:
        text: the quotation, line breaks in it folded to blanks; or that the text does not say.
        spans: its places in the documents; none where the text does not say.
        passages: the passage around each span.
        confidence: the probability that was given to it.
        trace: what was looked up and what else was considered; JSON values.
    """

    text: str
    spans: tuple[Span, ...] = ()
    passages: tuple[Passage, ...] = ()
    confidence: float = 0.0
    trace: Mapping[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> bool:
        return bool(self.spans)

    def to_json(self) -> dict[str, Any]:
        """The answer as the server gives it, each citation with the words that it stands for."""
        citations = [
            {
                "source": passage.source,
                "document_id": span.document_id,
                "start": span.start,
                "end": span.end,
                "text": passage.text[span.start - passage.start : span.end - passage.start],
                "heading": passage.heading,
            }
            for span, passage in zip(self.spans, self.passages, strict=True)
        ]
        return {"text": self.text, "citations": citations, "confidence": self.confidence}


class Answering(Protocol):
    """Whoever gives cited answers."""

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer: ...


class Reader:
    """Answers questions about documents.

    Args:
        model: who writes where there is no ranker; None where there is one.
        lookup: finds passages for a question, best first; better too many than too few.
        ranker: scores the spans.
        count: of the passages that are read.
        least: a quotation that is less likely right than this is not given. On held-out questions of the standard
            library 248 quotations had 5 below an even chance, of which 1 was right; greetings and questions that are
            phrased unlike any that the ranker knows fall below it too.
    """

    def __init__(
        self,
        model: ChatModel | None,
        lookup: Lookup,
        ranker: Ranker | None = None,
        count: int = 5,
        least: float = 0.5,
    ) -> None:
        if model is None and ranker is None:
            raise ConfigError("A reader needs a ranker, or a model that writes its answers.")
        self.model = model
        self.lookup = lookup
        self.ranker = ranker
        self.count = count
        self.least = least

    def answer(self, question: str, history: Sequence[Message] = ()) -> CitedAnswer:
        """Answers a question; "it" in it is what the user asked about before.

        Args:
            question: the user's words.
            history: the turns before it.
        """
        earlier = next((last_question(m.content) for m in reversed(history) if m.role == "user"), "")
        return self.read(question, self._passages(question, earlier), earlier)

    def read(self, question: str, passages: Sequence[Passage], earlier: str = "") -> CitedAnswer:
        """Answers a question from given passages."""
        if not passages:
            return CitedAnswer(NOT_IN_TEXT, trace={"method": "none", "question": question, "passages": []})
        if self.ranker is None:
            return self._written(question, passages)
        ranked = self.ranker.rank(question, passages, earlier)
        trace = {
            "method": "ranked",
            "question": question,
            "passages": [_place(passage) for passage in passages],
            "candidates": [_shown(one, passages) for one in ranked[:_TRACED]],
        }
        confidence = _confidence(ranked, passages)
        if ranked[0].passage >= 0 and confidence < self.least:
            return CitedAnswer(NOT_IN_TEXT, trace=trace)
        return _cited(ranked[0], confidence, passages, trace)

    def _passages(self, question: str, earlier: str) -> Sequence[Passage]:
        """Those of the question; where it names nothing itself, those of both questions."""
        alone = not earlier or read_question(question).names
        found = self.lookup(question if alone else f"{earlier} {question}")
        return arrange(read_question(question, earlier), found, self.count)

    def _written(self, question: str, passages: Sequence[Passage]) -> CitedAnswer:
        """What the model writes under a grammar of the first passage's words: it was taught with one at a time."""
        passages = passages[:1]
        assert self.model is not None
        constraint = Constraint("span", {"texts": [passage.text for passage in passages], "or": [NOT_IN_TEXT]})
        params = SamplingParams(temperature=0.0, max_tokens=_MOST_TOKENS, constraint=constraint)
        written = self.model.chat(
            [Message("user", grounded_prompt(question, passages))], params
        ).message.content.strip()
        trace = {"method": "written", "question": question, "passages": [_place(passage) for passage in passages]}
        if says_not_in_text(written) or not written:
            return CitedAnswer(NOT_IN_TEXT, trace=trace)
        for number, passage in enumerate(passages):
            if (at := passage.text.find(written)) >= 0:
                return _cited(Ranked(number, at, at + len(written), 0.0, 0.0), 0.0, passages, trace)
        return CitedAnswer(NOT_IN_TEXT, trace=trace)


def last_question(content: str) -> str:
    """The question of a user's turn, without the passages that it was asked with."""
    return content.rsplit("\n\n", 1)[-1]


def _cited(best: Ranked, confidence: float, passages: Sequence[Passage], trace: Mapping[str, Any]) -> CitedAnswer:
    if best.passage < 0:
        return CitedAnswer(NOT_IN_TEXT, confidence=confidence, trace=trace)
    passage = passages[best.passage]
    span = Span(passage.document_id, passage.start + best.start, passage.start + best.end)
    return CitedAnswer(_text(best, passages), (span,), (passage,), confidence, trace)


def _text(one: Ranked, passages: Sequence[Passage]) -> str:
    if one.passage < 0:
        return NOT_IN_TEXT
    quoted = passages[one.passage].text[one.start : one.end]
    return " ".join(quoted.split()) if "\n" in quoted else quoted


def _confidence(ranked: Sequence[Ranked], passages: Sequence[Passage]) -> float:
    """The probability of all candidates that say the same as the best."""
    best = _text(ranked[0], passages)
    return min(1.0, sum(one.probability for one in ranked if _text(one, passages) == best))


def _place(passage: Passage) -> dict[str, Any]:
    return {
        "source": passage.source,
        "document_id": passage.document_id,
        "start": passage.start,
        "end": passage.end,
        "heading": passage.heading,
    }


def _shown(one: Ranked, passages: Sequence[Passage]) -> dict[str, Any]:
    return {"text": _text(one, passages), "passage": one.passage, "probability": round(one.probability, 4)}
