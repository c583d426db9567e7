"""The calculator's arithmetic."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import InputError
from puna.stack.agents.arithmetic import evaluate


@pytest.mark.parametrize(
    ("text", "value"),
    [("2 + 3 * 4", "14"), ("(1 + 1) ^ 10", "1024"), ("sqrt(16) / 8", "0.5"), ("-7 // 2", "-4"),
     ("max(1, 2, pi)", "3.141592653589793"),  ("7 % 4", "3"), ("2 ** -1", "0.5"), ("round(2.5)", "2")],
)  # fmt: skip
def test_values(text: str, value: str) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "1/0", "9**9**9**9", "10**100000", "(-8) ** 0.5", "abs", "__import__('os')", "x", "'a' * 9", "True + 1",
     "(1).real", "[1][0]", "sqrt(-1)", "max()", "1" * 600, "lambda: 1", "exp(1000)"],
)  # fmt: skip
def test_what_has_no_value_is_refused_at_once(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(InputError):
        evaluate(text)
    assert time.monotonic() - start < 1


@given(st.text(alphabet="0123456789+-*/%() .e^", max_size=40))
def test_any_text_gives_a_value_or_a_refusal(text: str) -> None:
    try:
        float(evaluate(text))
    except InputError:
        return
    except OverflowError:
        return  # an integer too large for a float is a value nevertheless
