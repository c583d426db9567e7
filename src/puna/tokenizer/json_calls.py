"""Tool calls written as JSON, read a character at a time.

A stream must know at every moment whether its text can still become a call: as soon as it cannot, the text is shown.
So these readers accept a character or refuse it for good, and have read the call when its last brace closes. They
differ from Python's `json` in one point: a raw line break inside a string is accepted, because models write them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection
from typing import Any

from puna.core.chat import ToolCall
from puna.tokenizer.bpe import without_surrogates

# Deeper nesting is refused: no tool's arguments need it, and Python's parsers recurse.
MAX_DEPTH = 64
# Python turns no longer string of digits into a number.
_MAX_NUMBER_CHARS = 4300
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_NUMBER_SO_FAR = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.(?:[0-9]+(?:[eE](?:[+-]?[0-9]*))?)?|[eE](?:[+-]?[0-9]*))?)?")
_WORDS = ("true", "false", "null")
_BLANKS = " \t\r\n"


class JsonObject:
    """Reads one JSON object.

    Attributes:
        complete: whether the closing brace has been read; nothing may follow it.
        members: the top-level members read so far.
        reason: why the last character was refused.
    """

    def __init__(self) -> None:
        self.complete = False
        self.members: dict[str, Any] = {}
        self.reason = ""
        self._brackets: list[str] = []
        self._raw: list[str] = []  # the top-level key or value being read
        self._scalar = ""
        self._key = ""
        self._in_key = False
        self._hex_left = 0
        self._state: Callable[[str], bool] = self._start

    @property
    def untouched(self) -> bool:
        """Whether the opening brace has not been read yet."""
        return self._state == self._start

    def push(self, char: str) -> bool:
        """Takes the next character; False where no JSON object of the wanted kind can go on so."""
        self._raw.append(char)
        return self._state(char)

    def allows_key(self, key: str) -> bool:
        """For subclasses: whether a top-level member may have this name."""
        del key
        return True

    def allows_member(self, key: str, value: Any) -> bool:
        """For subclasses: whether a top-level member may have this value."""
        del key, value
        return True

    def allows_end(self) -> bool:
        """For subclasses: whether the members read make a whole."""
        return True

    def _refuse(self, reason: str) -> bool:
        self.reason = reason
        return False

    def _start(self, char: str) -> bool:
        if char == "{":
            return self._open(char)
        return char in _BLANKS or self._refuse("an object begins with '{'")

    def _open(self, bracket: str) -> bool:
        if len(self._brackets) == MAX_DEPTH:
            return self._refuse(f"more than {MAX_DEPTH} brackets are open")
        self._brackets.append(bracket)
        self._state = self._first_key if bracket == "{" else self._first_item
        return True

    def _close(self, bracket: str) -> bool:
        if self._brackets[-1] + bracket not in ("{}", "[]"):
            return self._refuse(f"{self._brackets[-1]!r} is open")
        self._brackets.pop()
        if self._brackets:
            return self._value_ended()
        self._state = self._ended
        self.complete = self.allows_end()
        return self.complete

    def _ended(self, char: str) -> bool:
        del char
        return self._refuse("the object has ended")

    def _first_key(self, char: str) -> bool:
        return self._close(char) if char == "}" else self._next_key(char)

    def _next_key(self, char: str) -> bool:
        if char == '"':
            if len(self._brackets) == 1:
                self._raw = [char]
            self._in_key, self._state = True, self._string
            return True
        return char in _BLANKS or self._refuse("a key in double quotes must come here")

    def _colon(self, char: str) -> bool:
        if char == ":":
            if len(self._brackets) == 1:
                self._raw = []
            self._state = self._value
            return True
        return char in _BLANKS or self._refuse("':' must follow a key")

    def _first_item(self, char: str) -> bool:
        return self._close(char) if char == "]" else self._value(char)

    def _value(self, char: str) -> bool:
        if char in _BLANKS:
            return True
        if char in "{[":
            return self._open(char)
        if char == '"':
            self._state = self._string
            return True
        self._scalar, self._state = "", self._in_scalar
        return self._in_scalar(char)

    def _in_scalar(self, char: str) -> bool:
        if char in _BLANKS or char in ",]}":
            if self._scalar not in _WORDS and not _NUMBER.fullmatch(self._scalar):
                return self._refuse("a value ends too early")
            self._raw.pop()
            if not self._value_ended():
                return False
            self._raw.append(char)
            return self._after_value(char)
        self._scalar += char
        if any(word.startswith(self._scalar) for word in _WORDS):
            return True
        if len(self._scalar) <= _MAX_NUMBER_CHARS and _NUMBER_SO_FAR.fullmatch(self._scalar):
            return True
        return self._refuse("no JSON value goes on so")

    def _string(self, char: str) -> bool:
        if char == "\\":
            self._state = self._escape
        elif char == '"':
            return self._key_ended() if self._in_key else self._value_ended()
        return True

    def _escape(self, char: str) -> bool:
        if char == "u":
            self._hex_left, self._state = 4, self._hex
            return True
        self._state = self._string
        return char in '"\\/bfnrt' or self._refuse("JSON has no such escape")

    def _hex(self, char: str) -> bool:
        self._hex_left -= 1
        if self._hex_left == 0:
            self._state = self._string
        return char in "0123456789abcdefABCDEF" or self._refuse("\\u needs four hexadecimal digits")

    def _key_ended(self) -> bool:
        self._in_key, self._state = False, self._colon
        if len(self._brackets) > 1:
            return True
        self._key = load_json("".join(self._raw))
        return self.allows_key(self._key) or self._refuse(self.reason or f"a call has no member {self._key!r}")

    def _value_ended(self) -> bool:
        self._state = self._after_value
        if len(self._brackets) > 1:
            return True
        try:
            value = load_json("".join(self._raw))
        except ValueError as error:
            return self._refuse(str(error))
        self.members[self._key] = value
        return self.allows_member(self._key, value) or self._refuse(
            self.reason or f"the member {self._key!r} of a call cannot have this value"
        )

    def _after_value(self, char: str) -> bool:
        if char == ",":
            self._state = self._next_key if self._brackets[-1] == "{" else self._value
            return True
        if char in "]}":
            return self._close(char)
        return char in _BLANKS or self._refuse("',' or a closing bracket must come here")


class CallObject(JsonObject):
    """Reads one call as an object: {"type": "function", "name": ..., "parameters": {...}}.

    "arguments" may stand for "parameters", both may be a string that holds JSON, and both may be absent where the
    type or a known name shows that a call is meant. OpenAI's form, which nests all this in "function", is read too.

    Args:
        known: names of the tools on offer.

    Attributes:
        call: what was read, once complete.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        super().__init__()
        self.call: ToolCall | None = None
        self._known = known

    def allows_key(self, key: str) -> bool:
        return key in ("type", "name", "parameters", "arguments", "function")

    def allows_member(self, key: str, value: Any) -> bool:
        if key == "type":
            return value == "function"
        if key == "name":
            return isinstance(value, str) and value != ""
        if key == "function":
            return isinstance(value, dict) and _call_of(value, self._known, typed=True) is not None
        return _arguments(value) is not None

    def allows_end(self) -> bool:
        members = self.members
        if "function" in members:
            inside: Any = members["function"]
            self.call = _call_of(inside, self._known, typed=True) if set(members) <= {"type", "function"} else None
        else:
            self.call = _call_of(members, self._known, typed="type" in members)
        return self.call is not None or self._refuse("the object lacks the name or the arguments of a call")


def _call_of(members: dict[str, Any], known: Collection[str], typed: bool) -> ToolCall | None:
    name = members.get("name")
    if not isinstance(name, str) or not name:
        return None
    given = [members[key] for key in ("parameters", "arguments") if key in members]
    if not given:
        return ToolCall(name) if typed or name in known else None
    arguments = _arguments(given[0])
    return None if arguments is None else ToolCall(name, arguments)


def _arguments(value: Any) -> dict[str, Any] | None:
    """The arguments as an object; JSON in a string is read, null and "" mean none. None where it is none of these."""
    if isinstance(value, str) and value:
        reader = JsonObject()
        return reader.members if all(map(reader.push, value.rstrip())) and reader.complete else None
    if value in (None, ""):
        return {}
    return value if isinstance(value, dict) else None


class JsonCalls:
    """Reads a text that is one `CallObject` or several, with blanks, ';' or ',' between.

    Attributes:
        calls: the calls that have been read whole.
        complete: whether the text may end here.
        reason: why the last character was refused.
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        self.calls: list[ToolCall] = []
        self.complete = False
        self.reason = ""
        self._known = known
        self._object: CallObject | None = None

    def push(self, char: str) -> bool:
        if self._object is None:
            if char in _BLANKS or (self.calls and char in ";,"):
                return True
            self._object = CallObject(self._known)
        if not self._object.push(char):
            self.reason = self._object.reason
            return False
        self.complete = self._object.complete
        if self._object.call is not None:
            self.calls.append(self._object.call)
            self._object = None
        return True


def load_json(text: str) -> Any:
    """JSON of bounded depth to a value. Surrogates in escapes are joined, or replaced where they stand alone.

    Raises:
        ValueError: malformed, or a number that Python cannot hold.
    """
    value = json.loads(text, strict=False, parse_float=_finite)
    return clean(value) if "\\u" in text else value


def clean(value: Any) -> Any:
    """The value with `without_surrogates` applied to every string in it."""
    if isinstance(value, str):
        return without_surrogates(value)
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"{digits[:40]} is too large for a number")
    return number
