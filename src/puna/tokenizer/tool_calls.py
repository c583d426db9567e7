"""The four ways in which Llama 3 writes tool calls, written and read.

    built-in      brave_search.call(query="...")                              3.1 to 3.3, after <|python_tag|>
                  any Python code, for the code interpreter                   the same
    JSON          {"type": "function", "name": "f", "parameters": {"a": 1}}   3.1
    function tag  <function=f>{"a": 1}</function>                             3.1
    pythonic      [f(a=1), g(b='x')]                                          3.2 and 3.3

The query of a built-in call stands as it is, quotes and all, and ends with the last quote: that is how Meta's code
writes it, so a backslash in it means itself. Several calls in one message, which Meta's code writes in the pythonic
form alone, are joined with "; " in JSON, and stand one after another as tags.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from puna.base.errors import InputError, ToolCallError
from puna.core.chat import ToolCall
from puna.tokenizer.json_calls import MAX_DEPTH, JsonCalls, JsonObject
from puna.tokenizer.python_calls import PythonicCalls

ToolFormat = Literal["json", "function_tag", "pythonic"]

SEARCH_TOOLS = ("brave_search", "wolfram_alpha", "photogen")
CODE_TOOL = "code_interpreter"
BUILTIN_TOOLS = (*SEARCH_TOOLS, CODE_TOOL)

_BUILTIN_CALL = re.compile(
    rf"\s*({'|'.join(SEARCH_TOOLS)})\.call\(\s*query\s*=\s*(['\"])(.*)\2\s*\)\s*", re.DOTALL | re.ASCII
)
_TAG_NAME = re.compile(r"[^\s<>]{1,256}")
_TAG_OPENS, _TAG_CLOSES = "<function=", "</function>"
# How a text opens that is meant as a call and not as code for the interpreter.
_MEANT_AS_CALL = re.compile(r'\s*(?:\{\s*"(?:type|name|function|parameters|arguments)"\s*:|<function=)')
_MAX_INT_BITS = 14_000  # 4,214 digits: Python reads no more than 4,300
_MAX_ARGUMENT_DEPTH = MAX_DEPTH - 4
_AS_TEXT = "A stream shows such a text as text."


class Segment(NamedTuple):
    """Calls that are written as one text.

    Attributes:
        text: what the model writes.
        builtin: whether the text is a call of a built-in tool, which always stands after `<|python_tag|>`.
    """

    text: str
    builtin: bool


def is_builtin(call: ToolCall) -> bool:
    """Whether a call is one of Llama's built-in tools, with the one argument that they take."""
    key = "code" if call.name == CODE_TOOL else "query"
    return call.name in BUILTIN_TOOLS and list(call.arguments) == [key] and isinstance(call.arguments[key], str)


def write_calls(calls: Sequence[ToolCall], tool_format: ToolFormat) -> list[Segment]:
    """The texts of a message's calls: one for each built-in call, one for each row of other calls between them.

    Raises:
        InputError: arguments that are not JSON values, or a name that the format cannot spell.
    """
    segments = []
    for builtin, group in groupby(calls, is_builtin):
        if builtin:
            segments += [Segment(_builtin_text(call), True) for call in group]
        else:
            segments.append(Segment(_WRITERS[tool_format]([_checked(call) for call in group]), False))
    return segments


def parse_tool_calls(text: str, known: Collection[str] = ()) -> tuple[ToolCall, ...]:
    """The calls that a text consists of, in whichever form.

    Args:
        text: calls alone; blanks around them are ignored. Code for the interpreter has no form and is not read here.
        known: names of the tools on offer; a JSON object {"name": ...} without arguments is a call of these alone.

    Raises:
        ToolCallError: anything else, saying where it stops being a call.
    """
    start = text.lstrip()[:1]
    if start == "{":
        return tuple(_read(JsonCalls(known), text).calls)
    if start == "[":
        return tuple(_read(PythonicCalls(), text).calls)
    if start == "<":
        return tuple(_read_tags(text))
    if match := _BUILTIN_CALL.fullmatch(text):
        return (ToolCall(match[1], {"query": match[3]}),)
    raise ToolCallError(
        f"The text {text[:40]!r} is no tool call.",
        hint="Calls begin with '{', '[', '<function=' or the name of a built-in tool.",
    )


def parse_tagged(text: str) -> tuple[ToolCall, ...]:
    """The calls after a `<|python_tag|>`: any form, and else code for the interpreter.

    Raises:
        ToolCallError: a text that opens as a JSON or tagged call, and is none.
    """
    try:
        return parse_tool_calls(text)
    except ToolCallError:
        if _MEANT_AS_CALL.match(text):
            raise
        return (ToolCall(CODE_TOOL, {"code": text}),)


class FunctionTag:
    """Reads one `<function=NAME>{...}</function>`, a character at a time.

    Attributes:
        complete: whether the closing tag has been read.
        call: what was read, as soon as its arguments have ended: a message may end there too.
        reason: why the last character was refused.
    """

    def __init__(self) -> None:
        self.complete = False
        self.call: ToolCall | None = None
        self.reason = ""
        self._opening = ""
        self._name = ""
        self._object: JsonObject | None = None
        self._closing = ""

    def push(self, char: str) -> bool:
        if self.complete:
            return self._refuse("the tag has ended")
        if self._opening != _TAG_OPENS:
            self._opening += char
            return _TAG_OPENS.startswith(self._opening) or self._refuse(f"a call begins with {_TAG_OPENS!r}")
        if self._object is None:
            return self._in_name(char)
        if self.call is None and not (char == "<" and self._object.untouched):
            return self._in_arguments(char, self._object)
        self.call = self.call or ToolCall(self._name)
        return self._in_closing(char)

    def _refuse(self, reason: str) -> bool:
        self.reason = reason
        return False

    def _in_name(self, char: str) -> bool:
        if char == ">" and self._name:
            self._object = JsonObject()
            return True
        self._name += char
        return bool(_TAG_NAME.fullmatch(self._name)) or self._refuse("a function's name must stand before '>'")

    def _in_arguments(self, char: str, arguments: JsonObject) -> bool:
        if not arguments.push(char):
            return self._refuse(arguments.reason)
        if arguments.complete:
            self.call = ToolCall(self._name, arguments.members)
        return True

    def _in_closing(self, char: str) -> bool:
        if not self._closing and char.isspace():
            return True
        self._closing += char
        self.complete = self._closing == _TAG_CLOSES
        return _TAG_CLOSES.startswith(self._closing) or self._refuse(f"{_TAG_CLOSES!r} must follow the arguments")


class _Reader(Protocol):
    complete: bool
    reason: str

    def push(self, char: str) -> bool: ...


R = TypeVar("R", bound=_Reader)


def _read(reader: R, text: str) -> R:
    """Feeds the text to a reader that must accept and complete it."""
    for at, char in enumerate(text):
        if not reader.push(char):
            raise ToolCallError(
                f"The tool call {_shown(text)} is wrong at character {at} ({char!r}): {reader.reason}.", hint=_AS_TEXT
            )
    if not reader.complete:
        raise ToolCallError(f"The tool call {_shown(text)} breaks off at character {len(text)}.", hint=_AS_TEXT)
    return reader


def _read_tags(text: str) -> list[ToolCall]:
    """Tags one after another; the last may lack its closing tag."""
    calls: list[ToolCall] = []
    tag: FunctionTag | None = None
    for at, char in enumerate(text):
        if tag is None and char.isspace():
            continue
        tag = tag or FunctionTag()
        if not tag.push(char):
            raise ToolCallError(
                f"The tool call {_shown(text)} is wrong at character {at} ({char!r}): {tag.reason}.", hint=_AS_TEXT
            )
        if tag.complete and tag.call:
            calls.append(tag.call)
            tag = None
    if tag is not None:
        if tag.call is None:
            raise ToolCallError(f"The tool call {_shown(text)} breaks off at character {len(text)}.", hint=_AS_TEXT)
        calls.append(tag.call)
    return calls


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _builtin_text(call: ToolCall) -> str:
    if call.name == CODE_TOOL:
        return call.arguments["code"]
    return f'{call.name}.call(query="{call.arguments["query"]}")'


def _json_text(calls: Sequence[ToolCall]) -> str:
    forms = [{"type": "function", "name": call.name, "parameters": call.arguments} for call in calls]
    return "; ".join(json.dumps(form, ensure_ascii=False) for form in forms)


def _tag_text(calls: Sequence[ToolCall]) -> str:
    for call in calls:
        if not _TAG_NAME.fullmatch(call.name):
            raise _unspeakable(call.name, "function tag")
    return "".join(
        f"{_TAG_OPENS}{call.name}>{json.dumps(call.arguments, ensure_ascii=False)}{_TAG_CLOSES}" for call in calls
    )


def _pythonic_text(calls: Sequence[ToolCall]) -> str:
    return f"[{', '.join(map(_pythonic_call, calls))}]"


def _pythonic_call(call: ToolCall) -> str:
    if not all(part.isidentifier() for part in call.name.split(".")):
        raise _unspeakable(call.name, "pythonic")
    arguments = [f"{key}={value!r}" for key, value in call.arguments.items() if key.isidentifier()]
    others = {key: value for key, value in call.arguments.items() if not key.isidentifier()}
    return f"{call.name}({', '.join([*arguments, *([f'**{others!r}'] if others else [])])})"


_WRITERS: dict[ToolFormat, Callable[[Sequence[ToolCall]], str]] = {
    "json": _json_text,
    "function_tag": _tag_text,
    "pythonic": _pythonic_text,
}


def _unspeakable(name: str, tool_format: str) -> InputError:
    return InputError(
        f"The {tool_format} format cannot spell a tool's name as {name!r}.",
        hint="Rename the tool to letters, digits and underscores, or use the tool format json.",
    )


def _checked(call: ToolCall) -> ToolCall:
    """The call with plain JSON values alone."""
    if not call.name:
        raise InputError("A tool call has no name.")
    arguments = {str(key): _json_value(value, call.name, 1) for key, value in call.arguments.items()}
    return ToolCall(call.name, arguments)


def _json_value(value: Any, name: str, depth: int) -> Any:
    if depth > _MAX_ARGUMENT_DEPTH:
        raise InputError(f"The arguments of tool call {name!r} are nested more than {_MAX_ARGUMENT_DEPTH} deep.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and value.bit_length() <= _MAX_INT_BITS:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _json_value(item, name, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item, name, depth + 1) for item in value]
    shown = f"a number of {value.bit_length()} bits" if isinstance(value, int) else repr(value)[:60]
    raise InputError(
        f"The arguments of tool call {name!r} hold {shown} (of type {type(value).__name__}), which JSON cannot.",
        hint="Arguments are null, true, false, finite numbers, strings, lists and objects.",
    )
