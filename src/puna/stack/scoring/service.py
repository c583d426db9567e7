"""`Scoring`: the registered scoring functions, and rows scored by several of them.

A registered function is a built-in one with parameters of its own. The model as judge (`llm-as-judge::base`) is asked
for a score in words; where no pattern finds one in its answer, the row has no score and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.base.config import read_toml
from puna.core.chat import Message
from puna.core.completion import SamplingParams
from puna.stack.context import Stack
from puna.stack.errors import invalid
from puna.stack.jobs.asking import complete
from puna.stack.jobs.resources import Resources
from puna.stack.safety.matching import MATCHER
from puna.stack.safety.shields import checked_pattern
from puna.stack.scoring.functions import SCORERS, Row, aggregate, text_of
from puna.stack.state.store import run

JUDGE = "llm-as-judge::base"
_BASIC_AGGREGATION = ("accuracy", "average")
_JUDGE_AGGREGATION = ("average", "categorical_count")
_JUDGE = read_toml(Path(__file__).parent / "assets" / "judge.toml")
_COLUMN = re.compile(r"\{(input_query|expected_answer|generated_answer)\}")
_TYPES = {
    "basic": "basic::equality",
    "regex_parser": "basic::regex_parser_multiple_choice_answer",
    "llm_as_judge": JUDGE,
}


def _built_in() -> dict[str, dict[str, Any]]:
    described = {id: " ".join((scorer.__doc__ or "").split()) for id, scorer in SCORERS.items()}
    described[JUDGE] = "A model's judgement: a number that it gives in words."
    types = {JUDGE: "llm_as_judge", "basic::regex_parser_multiple_choice_answer": "regex_parser"}
    return {
        id: {
            "identifier": id,
            "provider_id": id.partition("::")[0],
            "provider_resource_id": id,
            "type": "scoring_function",
            "description": text,
            "metadata": {},
            "return_type": {"type": "number"},
            "params": {"type": types[id], "judge_model": ""} if id == JUDGE else {"type": types.get(id, "basic")},
        }
        for id, text in described.items()
    }


class Scoring:
    """Args:
    stack: whose store keeps the functions, and whose models judge.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.functions = Resources(stack, "scoring_function", _built_in())

    async def register(self, owner: str, id: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a function: its base is named by `provider_resource_id`, or by the type of its parameters."""
        params = dict(data.get("params") or {})
        base = data.get("provider_resource_id") or _TYPES.get(str(params.get("type", "")), "")
        if base not in self.functions.built_in:
            known = ", ".join(self.functions.built_in)
            raise invalid(f"A scoring function is based on one of {known}, not on {base!r}.", "provider_scoring_fn_id")
        _check(base, params)
        provider = self.functions.built_in[base]["provider_id"]
        return await self.functions.register(
            owner,
            id,
            {
                "identifier": id,
                "provider_id": provider,
                "provider_resource_id": base,
                "type": "scoring_function",
                "description": data.get("description") or "",
                "metadata": dict(data.get("metadata") or {}),
                "return_type": data.get("return_type") or {"type": "number"},
                "params": params or None,
            },
        )

    async def score(
        self,
        owner: str,
        rows: Sequence[Row],
        functions: Mapping[str, Mapping[str, Any] | None],
        keys: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Every row by every function: {function: {"score_rows", "aggregated_results"}}; judges get `keys`."""
        results = {}
        for id, given in functions.items():
            function = await self.functions.get(owner, id, "scoring_functions")
            params = {**(function["params"] or {}), **(given or {})}
            base = function["provider_resource_id"]
            _check(base, params)
            scored = [await self._row(owner, base, row, params, keys) for row in rows]
            default = _JUDGE_AGGREGATION if base == JUDGE else _BASIC_AGGREGATION
            names = params.get("aggregation_functions") or default
            results[id] = {"score_rows": scored, "aggregated_results": aggregate(scored, names)}
        return results

    async def _row(
        self, owner: str, base: str, row: Row, params: Mapping[str, Any], keys: Mapping[str, str] | None
    ) -> dict[str, Any]:
        if base == JUDGE:
            return await self._judge(owner, row, params, keys)
        return await run(SCORERS[base], row, params)

    async def _judge(
        self, owner: str, row: Row, params: Mapping[str, Any], keys: Mapping[str, str] | None
    ) -> dict[str, Any]:
        model = params.get("judge_model")
        if not model:
            raise invalid("A judge needs the name of a model: judge_model.", "judge_model")
        template = params.get("prompt_template") or _JUDGE["prompt"].strip()
        prompt = _COLUMN.sub(lambda match: text_of(row, match[1]), template)
        asked = SamplingParams(temperature=0.0, max_tokens=256)
        completion = await complete(self._stack, model, [Message("user", prompt)], asked, owner=owner, keys=keys)
        answer = completion.message.content
        patterns = params.get("judge_score_regexes") or _JUDGE["regexes"]
        try:
            found = await run(MATCHER.search, patterns, answer)
        except TimeoutError as error:
            raise invalid(f"The regexes cannot be matched: {error}.", "judge_score_regexes") from error
        match = next((match for match in found if match is not None), None)
        said = next((group for group in [*(match or [])[1:], *(match or [])[:1]] if group is not None), None)
        return {"score": _number(said), "judge_feedback": answer}


def _number(text: str | None) -> float | str | None:
    """A score; a word, where the judge gives categories."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text


def _are_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _check(base: str, params: Mapping[str, Any]) -> None:
    for name in ("parsing_regexes", "judge_score_regexes"):
        patterns = params.get(name) or ()
        if not _are_texts(patterns):
            raise invalid(f"{name} must be a list of regular expressions.", name)
        for pattern in patterns:
            checked_pattern(pattern, name)
    names = params.get("aggregation_functions") or ()
    if not _are_texts(names):
        raise invalid("aggregation_functions must be a list of names.", "aggregation_functions")
    aggregate([], names)
    if base == JUDGE and params.get("prompt_template") is not None and not isinstance(params["prompt_template"], str):
        raise invalid("prompt_template must be a text.", "prompt_template")


def scoring_of(stack: Stack) -> Scoring:
    """The server's scoring, made when it is first asked for."""
    return stack.part("scoring", Scoring)
