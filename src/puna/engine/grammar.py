"""Answers that must have a form: a JSON schema, a regular expression, a grammar, a choice, a quotation, a tool call.

llguidance does the work: from the tokens so far it tells which tokens may follow, in some 50 microseconds for Llama 3's
vocabulary, and which must, so that these need no step of their own. A schema that it does not support fails its own
request, before anything is computed. JSON is written as Llama's tool calls are, with one blank after a comma or a colon
and no other: a model cannot lose itself in white space, and more of the text is certain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import llguidance as ll
import numpy as np
import torch
from torch import Tensor

from puna.base.errors import ConfigError, InputError
from puna.core.chat import ToolCall, ToolSpec
from puna.core.completion import Constraint
from puna.tokenizer import Tokenizer
from puna.tokenizer.preamble import ChatStyle
from puna.tokenizer.tool_calls import BUILTIN_TOOLS, write_calls

_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Compiles constraints for one tokenizer.

    Args:
        tokenizer: whose ids the matchers speak of.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._vocabulary = ll.LLTokenizer(
            ll.TokenizerWrapper(_Vocabulary(tokenizer)), eos_token=sorted(tokenizer.stop_ids)
        )

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the beginning of an answer.

        Raises:
            InputError: a schema, expression or grammar that is wrong or not supported, with the reason.
        """
        return Matcher(self._compiled(_grammar(constraint), constraint.kind), self.tokenizer)

    def call_matcher(self, tools: Sequence[ToolSpec], choice: str, style: ChatStyle) -> Matcher:
        """A matcher of tool calls as the chat format writes them.

        Args:
            tools: what is on offer.
            choice: "required" for a call of any of them, or the name of one.
            style: how calls are written.
        """
        allowed = [tool for tool in tools if choice in ("required", tool.name)]
        if not allowed:
            names = ", ".join(tool.name for tool in tools) or "none"
            raise InputError(f"tool_choice is {choice!r}; the tools on offer are: {names}.")
        return Matcher(self._compiled(_call_grammar(allowed, style), "tool call"), self.tokenizer)

    def _compiled(self, grammar: str, what: str) -> ll.LLMatcher:
        matcher = ll.LLMatcher(self._vocabulary, grammar, log_level=0)
        if matcher.is_error():
            raise InputError(f"The {what} cannot be used: {_reason(matcher)}", hint="Simplify it, or correct it.")
        return matcher


class Matcher:
    """The state of one answer under a grammar."""

    def __init__(self, matcher: ll.LLMatcher, tokenizer: Tokenizer) -> None:
        self._matcher = matcher
        self._mask = np.zeros(-(-tokenizer.vocab_size // 32), dtype=np.int32)

    def restrict(self, logits_V: Tensor) -> Tensor:
        """The logits, with minus infinity for the tokens that may not follow."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little", count=logits_V.shape[0])
        forbidden_V = torch.from_numpy(allowed == 0)
        return logits_V.masked_fill(forbidden_V.to(logits_V.device), float("-inf"))

    def take(self, token: int) -> None:
        """Moves on by a token that was allowed."""
        self._matcher.consume_token(token)
        self._check()

    def forced(self) -> list[int]:
        """The tokens that must follow; they are not taken yet."""
        return [] if self._matcher.is_stopped() else self._matcher.compute_ff_tokens()

    @property
    def ended(self) -> bool:
        """Whether nothing but the end of the answer may follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InputError(
                f"The answer cannot go on under its grammar: {_reason(self._matcher)}", hint="Simplify the grammar."
            )


class _Vocabulary:
    """A tokenizer as llguidance wants to see it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        names = {id: b"\xff" + name.encode() for name, id in tokenizer.special.items()}  # 0xff marks special tokens
        texts = {rank: token for token, rank in tokenizer.ranks.items()}
        self.tokens = [names.get(id) or texts.get(id, b"") for id in range(tokenizer.vocab_size)]
        self.eos_token_id = tokenizer.eot_id
        self.bos_token_id = tokenizer.bos_id
        self.special_token_ids = sorted(tokenizer.special.values())

    def __call__(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)


def _reason(matcher: ll.LLMatcher) -> str:
    return _line(matcher.get_error())


def _line(fault: str) -> str:
    """What is wrong, on one line; what the parser was looking at follows after a blank line, and is left out."""
    return " ".join(fault.partition("\n\n")[0].split())[:300]


def _json(value: Any) -> str:
    """A schema as text, in the style that answers have unless it asks for another one."""
    try:
        return json.dumps({"x-guidance": _JSON_STYLE, **value}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"The JSON schema is no JSON: {error}.", hint="Give an object of plain JSON values."
        ) from error


def _grammar(constraint: Constraint) -> str:
    value = constraint.value
    if constraint.kind == "json_schema":
        if not isinstance(value, Mapping):
            raise InputError(f"The JSON schema is {value!r}; it must be an object.")
        return ll.LLMatcher.grammar_from_json_schema(_json(value))
    if constraint.kind == "choice":
        if not value or isinstance(value, str) or not all(isinstance(text, str) and text for text in value):
            raise InputError(f"The choice is {value!r}; it must be a list of texts.")
        return ll.LLMatcher.grammar_from_lark("start: " + " | ".join(json.dumps(text) for text in value))
    if constraint.kind == "span":
        return ll.LLMatcher.grammar_from_lark(_span_grammar(value))
    if not isinstance(value, str) or not value:
        raise InputError(f"The {constraint.kind} is {value!r}; it must be a text.")
    if constraint.kind == "regex":
        return ll.LLMatcher.grammar_from_regex(value)
    if constraint.kind == "lark":
        return ll.LLMatcher.grammar_from_lark(value)
    raise ConfigError(f"There is no constraint {constraint.kind!r}.")


_CHUNK = re.compile(r"\w+|[^\w\s]|\s+")


def _span_grammar(value: Any) -> str:
    """A stretch of whole words from one line of some texts, or one of a list of texts, in Lark's notation.

    llguidance's substrings may be empty; an answer has at least one character, so each is met with "not empty".
    """
    texts: Any = value.get("texts") if isinstance(value, Mapping) else None
    others: Any = value.get("or", []) if isinstance(value, Mapping) else []
    for given in (texts, others):
        if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(t, str) for t in given):
            raise InputError(f"The span is {value!r}; it must be an object with a list of texts.")
    lines = dict.fromkeys(line.strip() for text in texts for line in text.splitlines())
    rules = [json.dumps(text) for text in others if text]
    terminals = []
    for i, line in enumerate(line for line in lines if line):
        rules.append(f"LINE_{i}")
        chunks = json.dumps({"substring_chunks": _CHUNK.findall(line)})
        terminals.append(f"LINE_{i}: PART_{i} & /(?s:.+)/\nPART_{i}: %regex {chunks}")
    if not rules:
        raise InputError("The span has no text to be taken from.", hint="Give at least one that is not empty.")
    return "\n".join(["start: " + " | ".join(rules), *terminals])


def _call_grammar(tools: Sequence[ToolSpec], style: ChatStyle) -> str:
    """One call of one of the tools, in Lark's notation."""
    rules = []
    for tool in tools:
        if tool.name in BUILTIN_TOOLS:
            raise InputError(
                f"A call of the built-in tool {tool.name!r} cannot be forced.", hint="Leave tool_choice at auto."
            )
        write_calls([ToolCall(tool.name)], style.tool_format)  # refuses a name that the format cannot spell
        schema = ll.LLMatcher.grammar_from_json_schema(_json(_schema(tool)))
        if fault := ll.LLMatcher.validate_grammar(schema):
            raise InputError(
                f"The parameters of the tool {tool.name!r} cannot be used: {_line(fault)}",
                hint="Simplify them, or correct them.",
            )
        rules.append(_CALLS[style.tool_format](tool))
    return ll.LLMatcher.grammar_from_lark("start: " + " | ".join(rules))


def _json_call(tool: ToolSpec) -> str:
    opening = json.dumps('{"type": "function", "name": ' + json.dumps(tool.name) + ', "parameters": ')
    return f'({opening} %json {_json(_schema(tool))} "}}")'


def _tagged_call(tool: ToolSpec) -> str:
    return f'({json.dumps(f"<function={tool.name}>")} %json {_json(_schema(tool))} "</function>")'


def _pythonic_call(tool: ToolSpec) -> str:
    """Keyword arguments, the required ones first; the optional ones may be left out."""
    known: Mapping[str, Any] = tool.parameters.get("properties") or {}
    required = list(dict.fromkeys(tool.parameters.get("required") or ()))
    optional = [name for name in known if name not in required and known[name] is not False]
    if wrong := [name for name in (*required, *optional) if not name.isidentifier()]:
        raise InputError(
            f"The tool {tool.name!r} has an argument {wrong[0]!r}, which a forced call in Python's form cannot spell.",
            hint="Rename it to letters, digits and underscores, or use the tool format json.",
        )
    shared = {key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}

    def argument(name: str) -> str:
        schema = known.get(name)
        return (
            f"{json.dumps(name + '=')} {_python_value({**shared, **(schema if isinstance(schema, Mapping) else {})})}"
        )

    parts = [argument(name) if i == 0 else f'", " {argument(name)}' for i, name in enumerate(required)]
    separated = [f'(", " {argument(name)})?' for name in optional]
    if required or not optional:
        inner = " ".join([*parts, *separated])
    else:
        # Whichever comes first has no comma before it.
        starts = [" ".join([argument(name), *separated[i + 1 :]]) for i, name in enumerate(optional)]
        inner = f"({' | '.join(starts)})?"
    return f'({json.dumps("[" + tool.name + "(")} {inner} ")]")'


def _python_value(schema: Mapping[str, Any]) -> str:
    """JSON's texts, numbers and lists are Python's; its three names are not."""
    kinds = schema.get("type")
    if kinds == "boolean":
        return '("True" | "False")'
    if kinds == "null":
        return '"None"'
    return f"%json {_json(schema)}"


def _schema(tool: ToolSpec) -> Mapping[str, Any]:
    return {**tool.parameters, "type": "object"}


_CALLS = {"json": _json_call, "function_tag": _tagged_call, "pythonic": _pythonic_call}
