"""Answers under a grammar: whatever the (random) model wants to say, what comes out has the form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from puna.base.errors import ConfigError, InputError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Constraint, SamplingParams
from puna.engine.config import EngineConfig
from puna.engine.grammar import Grammars
from puna.engine.local import LocalModel
from puna.testing import tiny_model, tiny_tokenizer
from puna.tokenizer import Tokenizer
from puna.tokenizer.chat import ChatFormat
from puna.tokenizer.preamble import ChatStyle

TOKENIZER = tiny_tokenizer()
DRAWN = SamplingParams(temperature=2.0, top_k=20, top_p=1.0, max_tokens=150)
SEEDS = 50

TEXT = {"type": "string", "maxLength": 4}
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
    "required": ["x", "y"],
    "additionalProperties": False,
}
LIST = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"v": {"enum": [1, 2]}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "null": {"type": "null"},
    "boolean": {"type": "boolean"},
    "bounded integer": {"type": "integer", "minimum": -5, "maximum": 120},
    "bounded number": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 10_000},
    "text": {"type": "string", "minLength": 2, "maxLength": 8},
    "pattern": {"type": "string", "pattern": "^[a-f]{2}-[0-9]{1,3}$"},
    "date": {"type": "string", "format": "date"},
    "enum": {"enum": ["north", "south", "nowhere", 7, None, {"a": [1]}]},
    "constant": {"const": {"kind": "x", "n": 1}},
    "types": {"type": ["integer", "null", "boolean"]},
    "any of": {"anyOf": [POINT, {"type": "array", "items": {"type": "integer"}, "maxItems": 2}]},
    "one of": {"oneOf": [{"const": "a"}, {"type": "integer", "minimum": 0, "maximum": 9}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 33}]},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [TEXT, {"type": "integer"}], "items": False, "minItems": 2},
    "object": POINT,
    "optional members": {
        "type": "object",
        "properties": {"a": TEXT, "b": {"type": "boolean"}, "c": {"type": "null"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "map": {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    "nested": {
        "type": "object",
        "properties": {'é "quoted"': {"type": "array", "items": POINT, "maxItems": 2}, "to": {"enum": ["p", "q"]}},
        "required": ['é "quoted"', "to"],
        "additionalProperties": False,
    },
    "recursive": LIST,
}
TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


def valid(value: Any, schema: Any, root: Mapping[str, Any]) -> bool:
    """JSON schema's rules, as far as the schemas above use them; a rule that is not known is a defect of the test."""
    if isinstance(schema, bool):
        return schema

    def holds(rule: str, given: Any) -> bool:
        match rule:
            case "$defs" | "required" | "additionalProperties" | "items":
                return True  # with the rules that they complete, below
            case "$ref":
                return valid(value, root["$defs"][given.rpartition("/")[2]], root)
            case "type":
                return any(TYPES[kind](value) for kind in ([given] if isinstance(given, str) else given))
            case "enum":
                return any(value == one and type(value) is type(one) for one in given)
            case "const":
                return value == given
            case "anyOf" | "oneOf" | "allOf":
                count = sum(valid(value, one, root) for one in given)
                return {"anyOf": count > 0, "oneOf": count == 1, "allOf": count == len(given)}[rule]
            case "minimum" | "maximum" | "exclusiveMinimum" | "multipleOf":
                return {"minimum": value >= given, "maximum": value <= given, "exclusiveMinimum": value > given}.get(
                    rule, value % given == 0 if rule == "multipleOf" else False
                )
            case "minLength" | "minItems":
                return len(value) >= given
            case "maxLength" | "maxItems" | "maxProperties":
                return len(value) <= given
            case "pattern":
                return re.search(given, value) is not None
            case "format":
                return re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", value) is not None
            case "properties" | "prefixItems":
                return True
        raise AssertionError(f"the validator does not know {rule!r}")

    if not all(holds(rule, given) for rule, given in schema.items()):
        return False
    if isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= value.keys() and all(
            valid(member, known.get(name, rest), root) for name, member in value.items()
        )
    if isinstance(value, list):
        first, rest = schema.get("prefixItems", []), schema.get("items", True)
        return all(valid(item, first[i] if i < len(first) else rest, root) for i, item in enumerate(value))
    return True


def test_the_validator_can_say_no():
    for value in ({"x": 1}, {"x": 1, "y": 2, "z": 3}, {"x": True, "y": 1}, [], None):
        assert not valid(value, POINT, POINT)
    assert not valid({"v": 1, "next": {"v": 3, "next": None}}, LIST, LIST)
    assert not valid([True, 1], SCHEMAS["array"], {})
    assert not valid(11, SCHEMAS["multiples"], {})
    assert not valid("ab-1234", SCHEMAS["pattern"], {})


def local(**style: Any) -> LocalModel:
    tokenizer = Tokenizer(TOKENIZER.ranks, TOKENIZER.special)
    tokenizer.chat = ChatFormat(tokenizer, ChatStyle(**style))
    model = tiny_model(2, num_hidden_layers=1, max_position_embeddings=4096)
    return LocalModel(model, tokenizer, EngineConfig(max_context=4096, max_running=SEEDS, mixed_step_tokens=512))


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return local()


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER)


def draw(model: LocalModel, constraint: Constraint, count: int = SEEDS, **changes: Any) -> list[Completion]:
    """Answers with the seeds 0, 1, ...; those that were cut off at the limit of tokens are left out."""
    first = model.generate("Go: ", replace(DRAWN, constraint=constraint, seed=0, n=count, **changes))
    return [answer for answer in (first, *first.others) if answer.stop_reason != "length"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_under_a_schema_is_valid(model: LocalModel, name: str):
    schema = SCHEMAS[name]
    answers = draw(model, Constraint("json_schema", schema))
    assert len(answers) > 0.7 * SEEDS
    for answer in answers:
        assert valid(json.loads(answer.message.content), schema, schema), answer.message.content
        assert not {*answer.message.content} & {*"\n\t\r"}
    assert len({answer.message.content for answer in answers}) > (name not in ("null", "constant"))


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        (Constraint("regex", "[a-c]{2}-[0-9]+x"), lambda text: re.fullmatch("[a-c]{2}-[0-9]+x", text)),
        (Constraint("choice", ["yes", "no", 'no "never"', "é"]), lambda t: t in ("yes", "no", 'no "never"', "é")),
        (Constraint("lark", 'start: "x" (y | "z")+ "."\ny: "yy"'), lambda text: re.fullmatch(r"x(yy|z)+\.", text)),
    ],
)
def test_expressions_choices_and_grammars_are_kept_too(model: LocalModel, constraint: Constraint, fits: Callable):
    answers = draw(model, constraint)
    assert len(answers) > 0.7 * SEEDS
    assert all(fits(answer.message.content) for answer in answers)
    assert len({answer.message.content for answer in answers}) > 2


@pytest.mark.parametrize("config", [{"draft": "ngram"}, {"cache_bytes": 256 * 120, "max_context": 120}])
def test_guesses_crowds_and_preemption_change_nothing_under_a_grammar(model: LocalModel, config: dict[str, Any]):
    constraint = Constraint("json_schema", SCHEMAS["nested"])
    prompts = [TOKENIZER.encode(text) for text in ("a", "some longer prompt" * 3, "b", "c")]
    params = replace(DRAWN, constraint=constraint, seed=3, max_tokens=60)
    other = LocalModel(model.model, TOKENIZER, EngineConfig(page_tokens=8, mixed_step_tokens=11, **config))
    for found, prompt in zip(other.generate(prompts, params), prompts, strict=True):
        assert found.ids == model.generate(prompt, params).ids
    assert other.engine.pool.free == other.engine.pool.count


# What must follow --------------------------------------------------------------------------------------------------


def test_what_must_follow_is_told_before_it_is_taken(grammars: Grammars):
    matcher = grammars.matcher(Constraint("choice", ["north", "south"]))
    assert matcher.forced() == []
    matcher.take(ord("n"))
    assert bytes(matcher.forced()) == b"orth"
    for token in b"orth":
        assert not matcher.ended
        matcher.take(token)
    assert matcher.ended
    assert matcher.forced() == []


def test_what_must_follow_needs_no_step_of_its_own(model: LocalModel):
    """Unless the log-probabilities of all tokens are asked for, which only the model knows."""
    constraint = Constraint("json_schema", {"type": "object", "properties": {"temperature": {"enum": ["low", "high"]}},
                                            "required": ["temperature"], "additionalProperties": False})  # fmt: skip

    def steps(**changes: Any) -> tuple[int, int]:
        params = replace(DRAWN, temperature=0, constraint=constraint, **changes)
        hearing = model.ask_all(model.request("?", params))[0]
        count = 0
        while not hearing.ended:
            model.engine.step()
            count += 1
        answer = hearing.completion()
        assert json.loads(answer.message.content)["temperature"] in ("low", "high")
        return count, len(answer.ids)

    quick, length = steps()
    assert quick <= 3 < 20 < length
    assert steps(logprobs=0) == (length, length)


def test_forced_tokens_are_heard_counted_and_cut_as_all_others(model: LocalModel):
    constraint = Constraint("choice", ["abcdefghij"])
    whole = model.generate("?", replace(DRAWN, constraint=constraint))
    assert (whole.message.content, whole.stop_reason, len(whole.ids)) == ("abcdefghij", "end_of_turn", 10)
    cut = model.generate("?", replace(DRAWN, constraint=constraint, max_tokens=4))
    assert (cut.message.content, cut.stop_reason, len(cut.ids)) == ("abcd", "length", 4)
    stopped = model.generate("?", replace(DRAWN, constraint=constraint, stop=("de",)))
    assert (stopped.message.content, stopped.stop_reason) == ("abc", "stop")


# Tool calls --------------------------------------------------------------------------------------------------------

WEATHER = ToolSpec(
    "weather",
    "Tells it.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 4},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "wet": {"type": "boolean"},
            "at": {"$ref": "#/$defs/point"},
            "none": {"type": "null"},
        },
        "required": ["city", "at"],
        "additionalProperties": False,
        "$defs": {"point": POINT},
    },
)
CLOCK_SCHEMA = {"properties": {"zone": TEXT, "utc": {"type": "boolean"}}, "additionalProperties": False}
CLOCK = ToolSpec("clock", "Tells the time.", CLOCK_SCHEMA)
PLAIN = ToolSpec("plain", "Takes nothing.", {"type": "object", "properties": {}, "additionalProperties": False})
FORMATS = ("json", "function_tag", "pythonic")


@pytest.mark.parametrize("tool_format", FORMATS)
def test_forced_calls_are_read_back_as_calls(tool_format: str):
    model = local(tool_format=tool_format)
    tools = [WEATHER, CLOCK, PLAIN]
    seen: set[str] = set()
    for choice in ("required", "weather", "clock"):
        first = model.chat("?", replace(DRAWN, temperature=6.0, tool_choice=choice, seed=0, n=SEEDS), tools)
        answers = [a for a in (first, *first.others) if a.stop_reason != "length"]
        assert len(answers) > 0.7 * SEEDS
        for answer in answers:
            (call,) = answer.message.tool_calls
            tool = next(tool for tool in tools if tool.name == call.name)
            assert choice in ("required", call.name)
            schema = {"type": "object", **tool.parameters}
            assert valid(dict(call.arguments), schema, schema), call
            assert answer.message.content == ""
            seen |= {call.name, *call.arguments}
    assert {"weather", "clock", "plain"} <= seen


def test_a_tool_choice_of_none_offers_no_tools(model: LocalModel):
    answer = model.chat("?", replace(DRAWN, temperature=0, tool_choice="none", max_tokens=5), [WEATHER])
    assert answer.usage.prompt_tokens == len(TOKENIZER.chat.render([Message("user", "?")]))


# What is refused ---------------------------------------------------------------------------------------------------

BAD: list[Constraint] = [
    Constraint("json_schema", {"type": "florp"}),
    Constraint("json_schema", {"$ref": "#/nowhere"}),
    Constraint("json_schema", {"$ref": "http://example.org/schema"}),
    Constraint("json_schema", {"a": {1, 2}}),
    Constraint("json_schema", {"minimum": float("nan"), "type": "number"}),
    Constraint("json_schema", {"type": "integer", "minimum": 5, "maximum": 1}),
    Constraint("json_schema", {"not": {"type": "string"}}),
    Constraint("json_schema", {"type": "string", "pattern": "(?=a)b"}),
    Constraint("json_schema", {"type": "string", "format": "banana"}),
    Constraint("json_schema", {"enum": []}),
    Constraint("json_schema", {"type": "object", "properties": 3}),
    Constraint("json_schema", [1]),
    Constraint("json_schema", None),
    Constraint("regex", "("),
    Constraint("regex", ""),
    Constraint("regex", 7),
    Constraint("lark", "start: nowhere"),
    Constraint("lark", "no grammar at all"),
    Constraint("choice", []),
    Constraint("choice", "text"),
    Constraint("choice", ["a", ""]),
    Constraint("choice", ["a\ud800"]),
]


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "constraint", [*BAD, Constraint("json_schema", deep(400)), Constraint("json_schema", deep(5000))]
)
def test_what_cannot_be_used_is_refused_with_the_reason(grammars: Grammars, constraint: Constraint):
    with pytest.raises(InputError) as caught:
        grammars.matcher(constraint)
    assert 20 < len(caught.value.message) < 1000
    assert caught.value.message.count("\n") == 0


def test_a_bad_schema_fails_alone(model: LocalModel):
    running = model.ask_all(model.request("Hi", replace(DRAWN, max_tokens=6)))
    model.engine.step()
    for constraint in BAD[:4]:
        with pytest.raises(InputError):
            model.chat("?", replace(DRAWN, constraint=constraint))
    while not running[0].ended:
        model.engine.step()
    assert running[0].completion().usage.completion_tokens > 0
    assert model.engine.pool.free == model.engine.pool.count


def test_an_unknown_kind_is_a_setting_that_does_not_exist(grammars: Grammars):
    with pytest.raises(ConfigError, match="'ebnf'"):
        grammars.matcher(Constraint("ebnf", "x"))  # type: ignore[arg-type]


def test_a_token_that_may_not_follow_ends_its_own_answer_alone(grammars: Grammars):
    matcher = grammars.matcher(Constraint("choice", ["ab"]))
    with pytest.raises(InputError, match="cannot go on under its grammar"):
        matcher.take(ord("x"))


@pytest.mark.parametrize(
    ("tools", "choice", "style", "reason"),
    [
        ([WEATHER], "wether", {}, "tool_choice is 'wether'; the tools on offer are: weather"),
        ([], "required", {}, "the tools on offer are: none"),
        ([ToolSpec("brave_search")], "required", {}, "built-in tool 'brave_search' cannot be forced"),
        ([ToolSpec("f", "", {"properties": 3})], "required", {}, "parameters of the tool 'f'"),
        ([ToolSpec("f", "", {"properties": {"a": {"type": "x"}}})], "f", {"tool_format": "pythonic"}, "Invalid type"),
        ([ToolSpec("two words")], "required", {"tool_format": "pythonic"}, "cannot spell"),
        ([ToolSpec("two words")], "required", {"tool_format": "function_tag"}, "cannot spell"),
        ([ToolSpec("f", "", {"properties": {"a-b": {}}})], "f", {"tool_format": "pythonic"}, "argument 'a-b'"),
    ],
)
def test_a_call_that_cannot_be_forced_is_refused(
    grammars: Grammars, tools: Sequence[ToolSpec], choice: str, style: dict[str, Any], reason: str
):
    with pytest.raises(InputError, match=reason):
        grammars.call_matcher(tools, choice, ChatStyle(**style))


def test_arguments_are_an_object_whatever_the_parameters_say(grammars: Grammars):
    matcher = grammars.call_matcher([ToolSpec("f", "", {"type": "string"})], "f", ChatStyle())
    assert bytes(matcher.forced()).decode().endswith('"parameters": {')


# Quotations -----------------------------------------------------------------------------------------------------------

LINES = ["def f(x):\n    return x + 1\n", 'Say "yes" — or żółw.']


@pytest.mark.parametrize("others", [[], ["Not there."]])
def test_a_span_is_a_stretch_of_whole_words_of_one_line(others: list[str]):
    answers = set()
    for seed in range(SEEDS):
        params = replace(DRAWN, seed=seed, constraint=Constraint("span", {"texts": LINES, "or": others}))
        completion = local().chat("?", params)
        answers.add(completion.message.content)
        assert completion.stop_reason in ("end_of_turn", "end_of_message")
    lines = [line for text in LINES for line in text.splitlines()]
    for answer in answers - set(others):
        assert answer
        line = next(line for line in lines if answer in line)
        starts = [found.start() for found in re.finditer(re.escape(answer), line)]
        words = [found.span() for found in re.finditer(r"\w+", line)]
        assert any(
            not any(low < start < high or low < start + len(answer) < high for low, high in words) for start in starts
        )
    assert len(answers) > SEEDS // 5


@pytest.mark.parametrize("value", [None, "text", {}, *({"texts": texts} for texts in ("text", [1], [], ["\n"]))])
def test_a_span_of_nothing_is_refused(value: Any):
    with pytest.raises(InputError, match="span"):
        Grammars(TOKENIZER).matcher(Constraint("span", value))
