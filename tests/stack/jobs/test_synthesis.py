"""Synthetic data."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.core.chat import Message
from puna.stack.errors import ApiError
from puna.stack.jobs.synthesis import chosen, dialogs_of, fault, generate, repeated_share
from puna.stack.testing import ScriptedProvider, make_stack

DIALOGS = [{"role": "user", "content": f"Question {n}"} for n in range(3)]


async def generated(folder: Path, answers: list[str], **body) -> tuple[dict, ScriptedProvider]:
    provider = ScriptedProvider(answers=answers)
    stack = make_stack(folder, provider)
    await stack.start()
    return await generate(stack, "", {"dialogs": DIALOGS, **body}), provider


def test_answers_become_conversations(tmp_path: Path) -> None:
    found, provider = asyncio.run(generated(tmp_path, ["First.", "Second.", "second"]))
    assert [row["messages"][-1]["content"] for row in found["synthetic_data"]] == ["First.", "Second."]
    assert found["statistics"] == {"dialogs": 3, "kept": 2, "rejected": {"duplicate": 1}, "mean_score": None}
    assert [message.role for message in provider.asked[0].messages] == ["system", "user"]


def test_a_filter_by_score_asks_for_judgements(tmp_path: Path) -> None:
    answers = ["A good one.", "Fine. Score: 5", "A bad one.", "Score: 1", "An odd one.", "Who knows?"]
    found, provider = asyncio.run(generated(tmp_path, answers, filtering_function="top_k", top_k=1))
    assert [row["score"] for row in found["synthetic_data"]] == [5.0]
    assert found["statistics"]["rejected"] == {"no_score": 1, "filtered": 1}
    assert found["statistics"]["mean_score"] == 3.0
    assert "user: Question 0" in provider.asked[1].messages[0].content


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "too_short"),
        ("x" * 30_000, "too_long"),
        ("the same four words " * 9, "repetitive"),
        ("what is it?", "copies_the_dialog"),
        ("Known!", "duplicate"),
        ("It is a llama.", ""),
    ],
)
def test_what_training_data_may_not_be(answer: str, reason: str) -> None:
    assert fault([Message("user", "What is it")], answer, ["known"]) == reason


def test_repetition_is_a_share() -> None:
    assert repeated_share("a b c d e f g") == 0.0
    assert repeated_share("a b c d a b c d") == pytest.approx(1 / 5)
    assert repeated_share("a") == 0.0


def test_filters_choose_by_score() -> None:
    rows = [{"number": n, "score": score} for n, score in enumerate([5.0, 1.0, 4.0, 2.0])]
    numbers = lambda kind, k=None, p=None: [row["number"] for row in chosen(rows, kind, k, p, 0)]  # noqa: E731
    assert numbers("none") == [0, 1, 2, 3]
    assert numbers("top_k") == [0, 2]
    assert numbers("top_k", 3) == [0, 2, 3]
    assert numbers("top_p", p=0.5) == [0, 2]
    assert numbers("top_k_top_p", 1, 0.99) == [0]


def test_drawn_filters_repeat_by_seed_and_follow_the_odds() -> None:
    rows = [{"number": n, "score": 5.0 if n % 2 else 1.0} for n in range(2000)]
    half = chosen(rows, "random", None, None, 1)
    assert half == chosen(rows, "random", None, None, 1) != chosen(rows, "random", None, None, 2)
    assert 900 < len(half) < 1100
    kept = chosen(rows, "sigmoid", None, None, 1)
    good = sum(row["score"] == 5.0 for row in kept)
    assert 840 < good < 920  # 1000 / (1 + exp(-2)) = 881
    assert 80 < len(kept) - good < 160


def test_what_cannot_be_answered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="must end with a user's message"):
        dialogs_of([[{"role": "assistant", "content": "x"}]])
    with pytest.raises(ApiError, match="no filter 'best'"):
        asyncio.run(generated(tmp_path, [], filtering_function="best"))
