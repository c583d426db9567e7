"""Synthetic data: a model answers dialogs, judges its answers, and filters keep the good ones.

Three rules hold whatever the scores: an answer must not be empty or overlong, must not repeat itself, and must not be a
copy of the question or of another answer. Then the filter of the request chooses by score. Every rejected answer is
counted under its reason.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.base.config import read_toml
from puna.base.files import hash_json
from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.stack.agents.llama import message_from, objects
from puna.stack.context import Stack
from puna.stack.errors import invalid
from puna.stack.jobs.asking import complete

Ask = Callable[[Sequence[Message], SamplingParams], Awaitable[str]]

FILTERS = ("none", "random", "top_k", "top_p", "top_k_top_p", "sigmoid")
_TEXTS = read_toml(Path(__file__).parent / "assets" / "synthesis.toml")
_SCORE = re.compile(_TEXTS["score"])
_RUN = 4  # words whose repetition is counted
_MIDDLE = 3.0  # the score that the sigmoid filter keeps half of


async def generate(
    stack: Stack, owner: str, body: Mapping[str, Any], keys: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Answers the dialogs, and keeps what the filter keeps."""

    async def ask(messages: Sequence[Message], params: SamplingParams) -> str:
        completion = await complete(stack, model, messages, params, owner=owner, keys=keys)
        return completion.message.content.strip()

    kind = body.get("filtering_function") or "none"
    if kind not in FILTERS:
        raise invalid(f"There is no filter {kind!r}. Known: {', '.join(FILTERS)}.", "filtering_function")
    dialogs = dialogs_of(body["dialogs"])
    model = body.get("model") or _only_model(stack)
    seed = body.get("seed") or 0
    counts: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for number, dialog in enumerate(dialogs):
        answer = await _answer(ask, dialog, seed + number)
        if reason := fault(dialog, answer, [row["answer"] for row in rows]):
            counts[reason] += 1
            continue
        score = await _judge(ask, dialog, answer) if kind not in ("none", "random") else None
        if kind not in ("none", "random") and score is None:
            counts["no_score"] += 1
            continue
        rows.append({"dialog": dialog, "answer": answer, "score": score, "number": number})
    kept = chosen(rows, kind, body.get("top_k"), body.get("top_p"), seed)
    if len(kept) < len(rows):
        counts["filtered"] = len(rows) - len(kept)
    scores = [row["score"] for row in rows if row["score"] is not None]
    return {
        "synthetic_data": [_row(row) for row in kept],
        "statistics": {
            "dialogs": len(dialogs),
            "kept": len(kept),
            "rejected": dict(counts),
            "mean_score": sum(scores) / len(scores) if scores else None,
        },
    }


def dialogs_of(data: Sequence[Any]) -> list[list[Message]]:
    """Dialogs as lists of messages; a bare message is a dialog of its own."""
    dialogs = []
    for entry in data:
        messages = entry if isinstance(entry, list) else entry.get("messages", [entry])
        dialog = [message_from(message, "dialogs") for message in objects(messages, "dialogs")]
        if not dialog or dialog[-1].role != "user":
            raise invalid("A dialog must end with a user's message, which is what will be answered.", "dialogs")
        dialogs.append(dialog)
    return dialogs


def _only_model(stack: Stack) -> str:
    models = [id for id, (_, info) in stack.models.items() if info.type == "llm"]
    if len(models) != 1:
        raise invalid(f"Name the model; this server has {len(models)}.", "model")
    return models[0]


async def _answer(ask: Ask, dialog: Sequence[Message], seed: int) -> str:
    system = [] if dialog[0].role == "system" else [Message("system", _TEXTS["answer"].strip())]
    return await ask([*system, *dialog], SamplingParams(seed=seed, max_tokens=1024))


async def _judge(ask: Ask, dialog: Sequence[Message], answer: str) -> float | None:
    values = {"dialog": "\n".join(f"{message.role}: {message.content}" for message in dialog), "answer": answer}
    prompt = re.sub(r"\{(dialog|answer)\}", lambda match: values[match[1]], _TEXTS["judge"].strip())
    found = _SCORE.findall(await ask([Message("user", prompt)], SamplingParams(temperature=0.0, max_tokens=256)))
    return float(found[-1]) if found else None


def fault(dialog: Sequence[Message], answer: str, others: Sequence[str]) -> str:
    """Why an answer is no training data; "" where it may be."""
    limits = _TEXTS["limits"]
    if len(answer) < limits["min_characters"]:
        return "too_short"
    if len(answer) > limits["max_characters"]:
        return "too_long"
    if repeated_share(answer) > limits["max_repeated_share"]:
        return "repetitive"
    if any(_plain(answer) == _plain(message.content) for message in dialog):
        return "copies_the_dialog"
    if any(_plain(answer) == _plain(other) for other in others):
        return "duplicate"
    return ""


def repeated_share(text: str) -> float:
    """Of the runs of four words, how many occurred before."""
    words = text.split()
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def chosen(
    rows: Sequence[dict[str, Any]], kind: str, top_k: int | None, top_p: float | None, seed: int
) -> list[dict[str, Any]]:
    """The rows that a filter keeps, in their order: "random" half of them, the others by score."""
    if kind == "none":
        return list(rows)
    if kind in ("random", "sigmoid"):
        odds = [0.5 if kind == "random" else 1 / (1 + math.exp(_MIDDLE - row["score"])) for row in rows]
        return [row for row, odd in zip(rows, odds, strict=True) if _draw(seed, row["number"]) < odd]
    best = sorted(rows, key=lambda row: -row["score"])
    if kind in ("top_k", "top_k_top_p"):
        best = best[: top_k if top_k is not None else max(1, len(rows) // 2)]
    if kind in ("top_p", "top_k_top_p"):
        best = _until_share(best, 0.9 if top_p is None else top_p)
    numbers = {row["number"] for row in best}
    return [row for row in rows if row["number"] in numbers]


def _until_share(best: Sequence[dict[str, Any]], share: float) -> list[dict[str, Any]]:
    """The fewest rows whose scores make up a share of all scores."""
    total, so_far, kept = sum(row["score"] for row in best), 0.0, []
    for row in best:
        if so_far >= share * total:
            break
        kept.append(row)
        so_far += row["score"]
    return kept


def _draw(seed: int, number: int) -> float:
    """A number between 0 and 1 that the same seed gives again."""
    return int(hash_json([seed, number])[:12], 16) / 16**12


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    messages = [message.to_json() for message in row["dialog"]] + [{"role": "assistant", "content": row["answer"]}]
    return {"messages": messages} | ({"score": row["score"]} if row["score"] is not None else {})
