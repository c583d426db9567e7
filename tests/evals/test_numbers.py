from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from puna.evals.numbers import flexible, same_number, strict

GSM8K = Path(__file__).parents[3] / "shared" / "data" / "gsm8k" / "train.jsonl"


@pytest.mark.parametrize(
    ("answer", "strictly", "flexibly"),
    [
        ("So 48 + 24 = 72.\n#### 72", "72", "72"),
        ("#### 1,234 apples, not 7", "1,234", "7"),
        ("The total is $1,234.", None, "$1,234."),
        ("#### -3", "-3", "-3"),
        ("####5", None, "5"),
        ("none", None, None),
        ("#### 5\n#### 6", "5", "6"),
    ],
)
def test_strict_wants_the_mark_and_flexible_takes_the_last_number(
    answer: str, strictly: str | None, flexibly: str | None
) -> None:
    assert (strict(answer), flexible(answer)) == (strictly, flexibly)


@pytest.mark.parametrize(
    ("found", "reference", "same"),
    [
        ("$1,234.", "a\n#### 1234", 1.0),
        ("1234", "1,234", 1.0),
        ("18.00", "#### 18", 0.0),
        ("-3", "#### 3", 0.0),
        (None, "#### 3", 0.0),
    ],
)
def test_numbers_are_compared_as_text_without_signs_of_money_and_thousands(
    found: str | None, reference: str, same: float
) -> None:
    assert same_number(found, reference) == same


@pytest.mark.skipif(not GSM8K.exists(), reason="shared/data/gsm8k is not there")
def test_every_reference_of_gsm8k_is_right_by_its_own_measure() -> None:
    answers = [json.loads(line)["answer"] for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 7473
    for answer in answers:
        assert same_number(strict(answer), answer) == same_number(flexible(answer), answer) == 1.0, answer
        number = re.sub(r"\D", "", answer.split("####")[1])
        assert same_number(str(int(number) + 1), answer) == 0.0
