"""Preferences from files: read, judged one by one, and what is left out counted by reason.

A pair that cannot teach what it seems to teach is never trained on in silence: an answer that is no answer, two equal
answers, roles out of order, a tool's result that nobody asked for. The report says how many there were of each kind,
and on which line the first one stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from puna.base.errors import InputError
from puna.base.files import read_jsonl, write_jsonl
from puna.core.chat import Message
from puna.core.preference import Preference

NO_PREFERENCE = "is no preference"
EMPTY_PROMPT = "the prompt is empty"
EMPTY_ANSWER = "an answer is empty"
EQUAL = "the answers are equal"
ROLES = "roles are out of order"
UNASKED = "a tool's result without a call"
WEAK = "the preference is too weak"

META_STRENGTHS = ("significantly", "better")  # arXiv 2407.21783, section 4.2.1: for the reward model and for DPO


@dataclass(slots=True)
class Report:
    """What was read and what became of it.

    Attributes:
        read: objects in the file.
        kept: preferences that can be trained on.
        left_out: reason -> how many.
        first: reason -> the number of the first object with it, from 1, and what is known of it.
    """

    read: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)

    def drop(self, reason: str, detail: str = "") -> None:
        self.left_out[reason] += 1
        self.first.setdefault(reason, (self.read, detail))

    def text(self) -> str:
        """One line: what was kept, then each reason with its count and first place."""
        parts = [f"{self.kept} of {self.read} preferences kept"]
        for reason, count in self.left_out.most_common():
            place, detail = self.first[reason]
            parts.append(f"{count} left out, {reason} (first: number {place}{', ' + detail if detail else ''})")
        return "; ".join(parts)


def read_preferences(path: Path | str, strengths: Sequence[str] = ()) -> tuple[list[Preference], Report]:
    """The sound preferences of a JSONL file.

    Args:
        path: one object a line, in either form that `Preference.from_json` reads.
        strengths: those to keep, such as `META_STRENGTHS`; () for all. A preference without a strength is kept.

    Raises:
        ArtifactError: there is no such file, or a line is not JSON.
        InputError: no preference is left.
    """
    kept, report = [], Report()
    for row in read_jsonl(path):
        report.read += 1
        preference = _read(row, report)
        if preference is None:
            continue
        if reason := fault(preference):
            report.drop(reason)
        elif strengths and preference.strength and preference.strength not in strengths:
            report.drop(WEAK, preference.strength)
        else:
            kept.append(preference)
    report.kept = len(kept)
    if not kept:
        raise InputError(
            f"{path} has no preference to learn from: {report.text()}.",
            hint='Each line is {"prompt": [messages], "chosen": [messages], "rejected": [messages]}.',
        )
    return kept, report


def write_preferences(path: Path | str, preferences: Iterable[Preference]) -> int:
    """Writes one a line, with an explicit prompt; returns how many."""
    return write_jsonl(path, (preference.to_json() for preference in preferences))


def _read(row: dict[str, Any], report: Report) -> Preference | None:
    try:
        return Preference.from_json(row)
    except InputError as error:
        report.drop(NO_PREFERENCE, error.message)
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        report.drop(NO_PREFERENCE, f"{type(error).__name__}: {error}")
    return None


def fault(preference: Preference) -> str:
    """Why this cannot be trained on; "" where it can."""
    if not preference.prompt:
        return EMPTY_PROMPT
    answers = preference.ranking
    if any(_is_empty(answer) for answer in answers):
        return EMPTY_ANSWER
    if len(set(map(_said, answers))) < len(answers):
        return EQUAL
    for answer in answers:
        if reason := _order(preference.prompt, answer):
            return reason
    return ""


def _is_empty(answer: Sequence[Message]) -> bool:
    spoken = [message for message in answer if message.role == "assistant"]
    return not answer or any(not (message.content.strip() or message.tool_calls) for message in spoken)


def _said(answer: Sequence[Message]) -> str:
    """What a model would read; ids of calls are not part of Llama's format."""
    return repr([(m.role, m.content, [(c.name, dict(c.arguments)) for c in m.tool_calls]) for m in answer])


def _order(prompt: Sequence[Message], answer: Sequence[Message]) -> str:
    """Why the messages cannot stand in this order; "" where they can."""
    if prompt[-1].role not in ("user", "tool") or answer[-1].role != "assistant" or answer[0].role != "assistant":
        return ROLES
    before = None
    open_calls: set[str] | None = None  # ids of the calls that wait for a result; None where there are none
    for message in (*prompt, *answer):
        role = message.role
        if role == "tool":
            if open_calls is None or (
                message.tool_call_id and any(open_calls) and message.tool_call_id not in open_calls
            ):
                return UNASKED
        elif not _may_follow(before, role):
            return ROLES
        elif role == "assistant":
            open_calls = {call.id for call in message.tool_calls} if message.tool_calls else None
        else:
            open_calls = None
        before = role
    return ""


def _may_follow(before: str | None, role: str) -> bool:
    if role == "system":
        return before is None
    if role == "user":
        return before in (None, "system", "assistant")
    return before in ("user", "tool")
