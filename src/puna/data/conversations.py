"""Conversations to learn from and tasks to be examined on, both quoted from documents.

Each conversation shows a passage and asks what it says; a share asks for what it does not say, and a share goes on
asking. What is asked is balanced, so that neither a long file, nor one kind of question, nor one answer such as `None`
drowns the rest. Everything is drawn by hashes: the same documents and seed give the same conversations, in any order
of the documents.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from puna.base.config import require
from puna.base.errors import ArtifactError, InputError
from puna.base.files import hash_json, read_jsonl, write_jsonl
from puna.core.chat import Conversation, Message
from puna.core.document import Document
from puna.core.verdict import Task
from puna.data.questions import asking
from puna.data.questions.asking import Question, Reading
from puna.data.questions.fact import Fact
from puna.data.questions.phrasing import draw
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import grounded_prompt

UNANSWERABLE = "not_in_text"

_TRIES = 8  # passages of a document that are looked at for one that does not mention a subject
_FEW = 1000  # questions of a kind that are never too many
_ONE_ANSWER = 0.05  # most of a kind's questions that may have the same answer


@dataclass(frozen=True, slots=True)
class QuestionConfig:
    """What is asked, and how often.

    Attributes:
        passage_chars: the longest passage, in characters; a prompt is about a third as many tokens and must fit the
            context with its answer.
        unanswerable: share of questions whose passage does not hold the answer.
        follow_ups: of the passages with several questions, the share that is asked about in one conversation.
        turns: the most questions in a conversation.
        per_document: the most questions on one document that it answers.
        kind_share: of the facts found, the share that is asked of one kind at most; small corpora are asked for all.
        distractors: share of prompts with a second passage of the same document that does not answer.
        limit: the most questions that are answered; 0 for all.
    """

    passage_chars: int = 600
    unanswerable: float = 0.15
    follow_ups: float = 0.3
    turns: int = 3
    per_document: int = 40
    kind_share: float = 0.1
    distractors: float = 0.0
    limit: int = 0

    def __post_init__(self) -> None:
        for name in ("unanswerable", "follow_ups", "distractors"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name} is {value}, and must be a share between 0 and 1.")
        require(self.unanswerable < 1, "unanswerable is 1: a model that never sees an answer learns none.")
        require(0 < self.kind_share <= 1, f"kind_share is {self.kind_share}, and must be above 0 and at most 1.")
        for name, least in (("passage_chars", 80), ("turns", 1), ("per_document", 1), ("limit", 0)):
            require(getattr(self, name) >= least, f"{name} is {getattr(self, name)}, and must be at least {least}.")


def build_conversations(documents: Sequence[Document], config: QuestionConfig, seed: int) -> list[Conversation]:
    """Conversations about the documents, in an order drawn by the seed."""
    readings = _readings(documents, config, seed)
    by_passage: dict[tuple[str, int], list[Question]] = defaultdict(list)
    for question in _questions(readings, config, seed):
        by_passage[question.passage.document_id, question.passage.start].append(question)
    others = _Distractors(readings, config, seed)
    conversations: list[tuple[float, Conversation]] = []
    for place, questions in by_passage.items():
        for group in _turns(questions, config, draw(seed, *place, "follow_ups")):
            conversation = _conversation(group, others.beside(group), seed)
            conversations.append((draw(seed, *place, group[0].question, "order"), conversation))
    return [conversation for _, conversation in sorted(conversations, key=lambda item: item[0])]


def build_tasks(documents: Sequence[Document], config: QuestionConfig, seed: int) -> list[Task]:
    """The same questions one by one, with what a correct answer is; `kind` is "not_in_text" where none is there."""
    readings = _readings(documents, config, seed)
    others = _Distractors(readings, config, seed)
    tasks = []
    for question in _questions(readings, config, seed):
        prompt = grounded_prompt(question.question, others.beside([question]))
        kind = question.kind if question.span else UNANSWERABLE
        task_id = hash_json([prompt, question.answer])[:16]
        tasks.append(Task(task_id, prompt, question.answer, kind, {**_meta([question]), "question": question.question}))
    return sorted(tasks, key=lambda task: task.id)


def _readings(documents: Iterable[Document], config: QuestionConfig, seed: int) -> list[Reading]:
    """In an order that does not depend on that of the documents."""
    by_id = {document.id: document for document in documents}
    return [asking.read(document, config.passage_chars, seed) for _, document in sorted(by_id.items())]


# What is asked -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A fact that could be asked for, and its place in the queue: public names come first."""

    place: tuple[bool, float]
    reading: Reading
    index: int
    fact: Fact

    @property
    def answer(self) -> str:
        return self.reading.document.text[self.fact.start : self.fact.end]


def _questions(readings: Sequence[Reading], config: QuestionConfig, seed: int) -> list[Question]:
    """Answerable and unanswerable questions; the answerable in the order of their draw."""
    chosen: list[_Candidate] = []
    for reading in readings:
        chosen.extend(_of_document(reading, config.per_document, seed))
    chosen.sort(key=lambda candidate: (candidate.place, candidate.reading.document.id))
    chosen = _balanced(_varied(chosen), config.kind_share)
    if config.limit:
        chosen = chosen[: config.limit]
    asked = [asking.answerable(c.reading, c.index, c.fact, seed) for c in chosen]
    wanted = round(len(asked) * config.unanswerable / (1 - config.unanswerable))
    return asked + _unanswerable(chosen, readings, wanted, seed)


def _of_document(reading: Reading, most: int, seed: int) -> list[_Candidate]:
    """Up to `most` of a document's facts, its kinds taking turns."""
    kinds: dict[str, list[_Candidate]] = defaultdict(list)
    for index, found in enumerate(reading.facts):
        for fact in found:
            place = (fact.private, draw(seed, reading.document.id, fact.kind, fact.start))
            kinds[fact.kind].append(_Candidate(place, reading, index, fact))
    queues = [sorted(queue, key=lambda c: c.place, reverse=True) for _, queue in sorted(kinds.items())]
    chosen: list[_Candidate] = []
    while len(chosen) < most and any(queues):
        chosen.extend(queue.pop() for queue in queues if queue)
    return chosen[:most]


def _varied(candidates: Sequence[_Candidate]) -> list[_Candidate]:
    """Without those whose answer the questions before them of the same kind have often had."""
    totals = Counter(candidate.fact.kind for candidate in candidates)
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for candidate in candidates:
        key = candidate.fact.kind, candidate.answer
        seen[key] += 1
        if seen[key] <= max(2, _ONE_ANSWER * totals[candidate.fact.kind]):
            kept.append(candidate)
    return kept


def _balanced(candidates: Sequence[_Candidate], share: float) -> list[_Candidate]:
    """With at most `share` of the candidates for each kind."""
    most = max(_FEW, round(share * len(candidates)))
    seen: Counter[str] = Counter()
    kept = []
    for candidate in candidates:
        seen[candidate.fact.kind] += 1
        if seen[candidate.fact.kind] <= most:
            kept.append(candidate)
    return kept


def _unanswerable(chosen: Sequence[_Candidate], readings: Sequence[Reading], wanted: int, seed: int) -> list[Question]:
    """Questions of `chosen`, each asked of a passage that does not mention its subject."""
    asked: list[Question] = []
    for candidate in sorted(chosen, key=lambda c: draw(seed, c.reading.document.id, c.fact.start, "absent")):
        if len(asked) >= wanted:
            break
        passage = _passage_without(candidate, readings, seed)
        if passage is not None:
            asked.append(asking.unanswerable(candidate.fact, passage, seed))
    return asked


def _passage_without(candidate: _Candidate, readings: Sequence[Reading], seed: int) -> Passage | None:
    """A passage of the same document, else of another of its kind, that does not mention the candidate's subject."""
    kind = candidate.reading.document.meta.get("kind")
    key = (seed, candidate.reading.document.id, candidate.fact.start, "elsewhere")
    for attempt in range(2 * _TRIES):
        reading = candidate.reading if attempt < _TRIES else readings[int(draw(*key, attempt) * len(readings))]
        if reading.document.meta.get("kind") != kind:
            continue
        passage = reading.passages[int(draw(*key, attempt, "passage") * len(reading.passages))]
        if len(passage.text.strip()) >= _LEAST_TEXT and asking.is_absent(candidate.fact, [passage]):
            return passage
    return None


_LEAST_TEXT = 80  # characters of a passage that a question without an answer is asked of


# How it is asked -----------------------------------------------------------------------------------------------------


class _Distractors:
    """Second passages for a share of the prompts."""

    def __init__(self, readings: Sequence[Reading], config: QuestionConfig, seed: int) -> None:
        self.readings = {reading.document.id: reading for reading in readings} if config.distractors else {}
        self.share = config.distractors
        self.seed = seed

    def beside(self, group: Sequence[Question]) -> list[Passage]:
        """The passage that a prompt shows, and perhaps one more, in either order."""
        passage = group[0].passage
        key = (self.seed, passage.document_id, passage.start, group[0].question, "distractor")
        if draw(*key) >= self.share or passage.document_id not in self.readings:
            return [passage]
        others = self.readings[passage.document_id].passages
        other = others[int(draw(*key, "which") * len(others))]
        if other == passage or not all(asking.is_absent(question.fact, [other]) for question in group):
            return [passage]
        return [passage, other] if draw(*key, "order") < 0.5 else [other, passage]


def _turns(questions: Sequence[Question], config: QuestionConfig, chance: float) -> list[list[Question]]:
    """The questions on one passage as conversations: in one where the draw says so, else each alone."""
    if chance >= config.follow_ups or config.turns < 2:
        return [[question] for question in questions]
    first = {question.fact.subject: i for i, question in reversed(list(enumerate(questions)))}
    ordered = sorted(questions, key=lambda question: (first[question.fact.subject], question.fact.start))
    return [ordered[i : i + config.turns] for i in range(0, len(ordered), config.turns)]


def _conversation(group: Sequence[Question], passages: Sequence[Passage], seed: int) -> Conversation:
    messages: list[Message] = []
    for i, question in enumerate(group):
        if i == 0:
            words = grounded_prompt(question.question, passages)
        elif question.fact.subject and question.fact.subject == group[i - 1].fact.subject:
            words = question.again(seed)
        else:
            words = question.question
        messages += [Message("user", words), Message("assistant", question.answer)]
    return Conversation(tuple(messages), meta=_meta(group))


def _meta(group: Sequence[Question]) -> dict[str, Any]:
    """`spans` has one entry an answer, None for an answer that is no quotation."""
    passage = group[0].passage
    kinds = [question.kind if question.span else UNANSWERABLE for question in group]
    return {
        "kind": kinds[0] if len(kinds) == 1 else "several",
        "kinds": kinds,
        "source": passage.source,
        "document_id": passage.document_id,
        "passage": [passage.start, passage.end],
        "spans": [[question.span.start, question.span.end] if question.span else None for question in group],
    }


# On disk -------------------------------------------------------------------------------------------------------------


def write_conversations(path: Path | str, conversations: Iterable[Conversation]) -> int:
    """Writes one conversation a line (`{"messages": [...]}`), atomically; returns how many."""
    return write_jsonl(path, (conversation.to_json() for conversation in conversations))


def read_conversations(path: Path | str) -> list[Conversation]:
    """Reads what `write_conversations` or another tool wrote in OpenAI's shape.

    Raises:
        ArtifactError: there is no such file, or a line is no conversation; the message gives its number.
    """
    conversations = []
    for row in read_jsonl(path):
        try:
            conversations.append(_checked(row))
        except (InputError, KeyError, TypeError, AttributeError, ValueError) as error:
            reason = error.message if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            raise ArtifactError(
                f"{path}, line {_line(path, len(conversations))}: {reason}.",
                hint='Each line is {"messages": [{"role", "content"}]}.',
            ) from error
    return conversations


def _line(path: Path | str, before: int) -> int:
    """The number of the line that holds an object which `before` others precede."""
    with Path(path).open("rb") as file:
        filled = (number for number, line in enumerate(file, 1) if line.strip())
        return next(islice(filled, before, None))


def _checked(row: Mapping[str, Any]) -> Conversation:
    """A conversation in which someone asks and the assistant has the last word."""
    conversation = Conversation.from_json(row)
    roles = [message.role for message in conversation.messages]
    if "user" not in roles or roles[-1] != "assistant":
        raise InputError(f"its roles are {', '.join(roles) or 'none'}; a user must ask and an assistant end")
    if "system" in roles[1:]:
        raise InputError("a system message stands after the first place")
    for before, after in pairwise(roles):
        if before == after and after != "tool":
            raise InputError(f"two messages of the {after} follow each other")
    if any(
        message.role == "assistant" and not (message.content or message.tool_calls) for message in conversation.messages
    ):
        raise InputError("an answer is empty")
    return conversation
