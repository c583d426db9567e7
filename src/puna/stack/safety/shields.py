"""Shields by kind: what an entry point of the group `puna.shields` names makes one from its parameters.

`regex` is built in: the owner's own patterns, each with a hazard. It is exact and knows no meaning. `llama-guard` needs
the weights of a guard, which this version cannot run: it says so, and passes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from puna.base.registry import Registry
from puna.core.chat import Message
from puna.core.protocols import Shield
from puna.core.verdict import Verdict
from puna.stack.errors import invalid, not_implemented
from puna.stack.safety.matching import MATCHER

ShieldFactory = Callable[[Mapping[str, Any]], Shield]

SHIELDS: Registry[ShieldFactory] = Registry("shield", "puna.shields")


class RegexShield:
    """Finds the owner's patterns in a message.

    Args:
        params: "patterns": {hazard: pattern or list of patterns}; "message": what the user is told;
            "ignore_case": true by default.

    Attributes:
        hazards: all that it looks for.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        table = params.get("patterns")
        if not isinstance(table, Mapping) or not table:
            raise invalid(
                'A regex shield needs patterns: {"patterns": {"hazard": ["pattern", ...]}}.', "params.patterns"
            )
        self.hazards = tuple(map(str, table))
        self._ignore_case = bool(params.get("ignore_case", True))
        self._message = str(params.get("message", ""))
        self._patterns = {str(hazard): _checked(hazard, value) for hazard, value in table.items()}

    def check(self, messages: Sequence[Message]) -> Verdict:
        text = messages[-1].content if messages else ""
        text += "".join(
            f"\n{call.name} {dict(call.arguments)}" for call in (messages[-1].tool_calls if messages else ())
        )
        every = [pattern for patterns in self._patterns.values() for pattern in patterns]
        found = dict(zip(every, MATCHER.search(every, text, self._ignore_case), strict=True))
        scores = {
            hazard: float(any(found[pattern] is not None for pattern in patterns))
            for hazard, patterns in self._patterns.items()
        }
        hazards = tuple(hazard for hazard, score in scores.items() if score)
        reason = self._message or f"The text is about {', '.join(hazards)}, which this server does not let pass."
        return Verdict(not hazards, hazards, scores, reason if hazards else "")


def _checked(hazard: Any, value: Any) -> list[str]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(p, str) for p in patterns):
        raise invalid(f"The patterns of {hazard!r} are {value!r}; they must be a list of texts.", "params.patterns")
    return [checked_pattern(pattern, "params.patterns") for pattern in patterns]


def checked_pattern(pattern: str, param: str | None = None) -> str:
    """A pattern that can be compiled.

    Raises:
        ApiError: 400 where it cannot.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise invalid(f"{pattern[:80]!r} is no regular expression: {error}.", param) from error
    return pattern


def _llama_guard(params: Mapping[str, Any]) -> Shield:
    del params
    raise not_implemented(
        "A Llama Guard shield needs the weights of a guard model, and this server cannot run one yet; "
        "register a shield of kind 'regex', or one of another package by the entry points puna.shields."
    )


SHIELDS.add("regex", RegexShield)
SHIELDS.add("llama-guard", _llama_guard)
