"""Questions by a teacher: any `ChatModel` writes them, and only what can be checked against the passage is kept.

A teacher invents. An answer is kept if it is a quotation of the passage, which gives it a span, or the agreed sentence
that the text does not say; everything else is counted by the reason for which it was refused. Answers of the teacher
are cached by a hash of the model's name and the request, one file each, so that a run that was cut off goes on without
asking again.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from puna.base.config import require
from puna.base.files import hash_json, read_json, write_json
from puna.base.progress import Progress, Silent
from puna.core.chat import Conversation, Message
from puna.core.completion import SamplingParams
from puna.core.protocols import ChatModel
from puna.data.questions.fact import LONGEST, SHORTEST
from puna.knowledge.chunk import Passage
from puna.knowledge.grounding import NOT_IN_TEXT, grounded_prompt, says_not_in_text, title

_ARRAY = re.compile(r"\[.*\]", re.DOTALL)
_POINTING = re.compile(r"\b(?:the|this) (?:passage|text|excerpt|document|snippet|section above)\b", re.IGNORECASE)
_LONGEST_QUESTION = 300


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """What is asked of a teacher.

    Attributes:
        model: the teacher's name, a part of the cache's keys.
        questions: how many it writes on a passage.
        concurrency: requests under way at a time.
        least_chars: passages with less text are passed over.
        params: how it samples.
    """

    model: str
    questions: int = 4
    concurrency: int = 8
    least_chars: int = 120
    params: SamplingParams = field(default_factory=lambda: SamplingParams(temperature=0.7, max_tokens=800, seed=0))

    def __post_init__(self) -> None:
        require(bool(self.model), "model is empty.", "Give the teacher's name: its answers are cached under it.")
        for name in ("questions", "concurrency", "least_chars"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, and must be at least 1.")


@dataclass(frozen=True, slots=True)
class TeacherReport:
    """What came of the passages.

    Attributes:
        passages: how many were asked about.
        cached: of these, answered from the cache.
        kept: questions that passed the checks.
        refused: questions that did not, by reason.
        cost: US dollars, of the answers that were not cached.
    """

    passages: int
    cached: int
    kept: int
    refused: Mapping[str, int]
    cost: float


@dataclass(frozen=True, slots=True)
class _Reply:
    text: str
    cached: bool
    cost: float


def teach(
    model: ChatModel,
    passages: Sequence[Passage],
    config: TeacherConfig,
    cache_path: Path | str,
    progress: Progress | None = None,
) -> tuple[list[Conversation], TeacherReport]:
    """Asks the teacher about each passage; returns one conversation a kept question, in the order of the passages.

    Args:
        model: the teacher; used from several threads at once unless `concurrency` is 1.
        passages: what to write questions on.
        config: how many, and how they are drawn.
        cache_path: a folder for the teacher's replies; the same one resumes.
        progress: who watches.

    Raises:
        RemoteError: the teacher cannot be reached. What it has answered is in the cache.
    """
    asked = [passage for passage in passages if len(passage.text.strip()) >= config.least_chars]
    conversations: list[Conversation] = []
    refused: Counter[str] = Counter()
    cached, cost = 0, 0.0
    with (progress or Silent()).task("teacher", total=len(asked), unit="passages") as bar:
        for passage, reply in zip(asked, _replies(model, asked, config, Path(cache_path)), strict=True):
            cached += reply.cached
            cost += reply.cost
            conversations.extend(_conversations(passage, reply.text, config.model, refused))
            bar.advance(1, kept=len(conversations))
    return conversations, TeacherReport(len(asked), cached, len(conversations), dict(refused), cost)


def _replies(model: ChatModel, passages: Sequence[Passage], config: TeacherConfig, cache: Path) -> Iterator[_Reply]:
    """The teacher's replies in order. A failure leaves the pool at once, with nothing new begun."""
    pool = ThreadPoolExecutor(config.concurrency)
    try:
        yield from pool.map(lambda passage: _reply(model, passage, config, cache), passages)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _reply(model: ChatModel, passage: Passage, config: TeacherConfig, cache: Path) -> _Reply:
    messages = _request(passage, config.questions)
    key = hash_json([config.model, asdict(config.params), [message.to_json() for message in messages]])
    file = cache / key[:2] / f"{key}.json"
    if file.exists():
        return _Reply(read_json(file)["reply"], cached=True, cost=0.0)
    completion = model.chat(messages, config.params)
    write_json(file, {"model": config.model, "reply": completion.message.content})
    return _Reply(completion.message.content, cached=False, cost=completion.cost)


@lru_cache(maxsize=1)
def _prompts() -> Mapping[str, str]:
    return tomllib.loads((resources.files("puna.data") / "assets/teacher.toml").read_text(encoding="utf-8"))


def _request(passage: Passage, count: int) -> list[Message]:
    """The slots are replaced one by one: a passage may hold braces."""
    system = _prompts()["system"].strip().replace("{not_in_text}", NOT_IN_TEXT).replace("{count}", str(count))
    user = _prompts()["user"].strip().replace("{title}", title(passage)).replace("{passage}", passage.text.strip())
    return [Message("system", system), Message("user", user)]


def _conversations(passage: Passage, reply: str, teacher: str, refused: Counter[str]) -> Iterator[Conversation]:
    """The questions of a reply that pass the checks."""
    pairs = _pairs(reply)
    if pairs is None:
        refused["no JSON list"] += 1
        return
    seen: set[str] = set()
    for pair in pairs:
        question, answer = _words(pair, "question"), _words(pair, "answer")
        span = _span(passage, answer)
        if reason := _fault(question, answer, span, seen):
            refused[reason] += 1
            continue
        seen.add(question.casefold())
        messages = (
            Message("user", grounded_prompt(question, [passage])),
            Message("assistant", answer if span else NOT_IN_TEXT),
        )
        meta: dict[str, Any] = {
            "kind": "taught" if span else "not_in_text",
            "kinds": ["taught" if span else "not_in_text"],
            "source": passage.source,
            "document_id": passage.document_id,
            "passage": [passage.start, passage.end],
            "spans": [list(span) if span else None],
            "teacher": teacher,
        }
        yield Conversation(messages, meta=meta)


def _pairs(reply: str) -> list[Any] | None:
    """The JSON list in a reply, which may stand in a fence or between other words."""
    found = _ARRAY.search(reply)
    try:
        pairs = json.loads(found[0]) if found else None
    except json.JSONDecodeError:
        return None
    return pairs if isinstance(pairs, list) else None


def _words(pair: Any, key: str) -> str:
    value = pair.get(key) if isinstance(pair, dict) else None
    return value.strip() if isinstance(value, str) else ""


def _span(passage: Passage, answer: str) -> tuple[int, int] | None:
    """Where the passage says the answer, counted in the document."""
    if not answer:
        return None
    before = r"(?<!\w)" if answer[0].isalnum() else ""  # not within a word
    after = r"(?!\w)" if answer[-1].isalnum() else ""
    found = re.search(f"{before}{re.escape(answer)}{after}", passage.text)
    return (passage.start + found.start(), passage.start + found.end()) if found else None


def _fault(question: str, answer: str, span: tuple[int, int] | None, seen: set[str]) -> str:
    """Why a question is refused; "" where it is not."""
    if not question or not answer:
        return "question or answer missing"
    if len(question) > _LONGEST_QUESTION or "\n" in question:
        return "question too long"
    if question.casefold() in seen:
        return "question asked twice"
    if _POINTING.search(question):
        return "question points at the passage"
    if says_not_in_text(answer):
        return ""
    if span is None:
        return "answer is no quotation"
    if not SHORTEST <= len(answer) <= LONGEST or "\n" in answer:
        return "answer too short or too long"
    return "answer is in the question" if answer.casefold() in question.casefold() else ""
