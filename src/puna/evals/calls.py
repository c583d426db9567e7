"""Function calls beside the calls that were expected, as the Berkeley leaderboard's AST check judges them.

An expected call gives each argument its allowed values; "" among them lets the argument be left out. Calls match in any
order. Texts are compared without case and outer blanks, and an integer stands for a float of its value; the leaderboard
also folds inner punctuation, which is left out: it accepts dates that a tool would refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from puna.base.errors import InputError
from puna.core.chat import ToolCall
from puna.tokenizer.tool_calls import parse_tool_calls

Expected = tuple[str, Mapping[str, Any]]


def expected_calls(value: Any) -> list[Expected]:
    """Reads [{"name": {"argument": [allowed values]}}], or {"name", "arguments"} with one value each; one or a list.

    Raises:
        InputError: something else.
    """
    found: list[Expected] = []
    for call in value if isinstance(value, list) else [value]:
        if (
            isinstance(call, Mapping)
            and isinstance(call.get("arguments"), Mapping)
            and isinstance(call.get("name"), str)
        ):
            found.append((call["name"], {key: [item] for key, item in call["arguments"].items()}))
        elif isinstance(call, Mapping) and len(call) == 1 and isinstance(next(iter(call.values())), Mapping):
            found.append(next(iter(call.items())))
        else:
            raise InputError(f"expected_answer holds {call!r}; it must hold calls.")
    return found


def match_text(text: str, expected: Sequence[Expected]) -> str:
    """Why the calls in a model's text are not the expected ones; "" where they are."""
    try:
        calls = parse_tool_calls(text.strip(), [name for name, _ in expected])
    except InputError as error:
        return error.message
    return mismatch(calls, expected)


def mismatch(calls: Sequence[ToolCall], expected: Sequence[Expected]) -> str:
    """Why calls are not the expected ones; "" where they are."""
    if len(calls) != len(expected):
        return f"{len(calls)} calls; {len(expected)} were expected"
    left = list(calls)
    for name, arguments in expected:
        found = next((call for call in left if call.name == name and _fits(call.arguments, arguments)), None)
        if found is None:
            return f"no call of {name} with the expected arguments"
        left.remove(found)
    return ""


def _fits(given: Mapping[str, Any], allowed: Mapping[str, Any]) -> bool:
    """Whether each argument has an allowed value; one may be left out where "" is among its values."""
    if any(name not in allowed for name in given):
        return False
    for name, values in allowed.items():
        values = values if isinstance(values, list) else [values]
        if name in given:
            if not any(_same(given[name], value) for value in values):
                return False
        elif "" not in values:
            return False
    return True


def _same(given: Any, value: Any) -> bool:
    if isinstance(given, str) and isinstance(value, str):
        return given.strip().lower() == value.strip().lower()
    if isinstance(given, bool) or isinstance(value, bool):
        return given is value
    if isinstance(given, list) and isinstance(value, list):
        return len(given) == len(value) and all(_same(one, other) for one, other in zip(given, value, strict=True))
    return given == value
