"""Tool calls written as a Python list, `[f(a=1), g(b='x')]`, read a character at a time.

The reader takes the list apart itself, which tells a stream at once when a text cannot be such a list, and leaves the
values to `ast`: literals alone, so nothing is ever evaluated. What models write and Python refuses is accepted where
it has one meaning: a raw line break inside quotes, true, false and null, and a Python keyword as an argument's name.
Refused are empty lists, positional arguments, nested lists of calls, and anything before or after the list.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from typing import Any

from puna.core.chat import ToolCall
from puna.tokenizer.json_calls import MAX_DEPTH, clean

_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_NUMBER = re.compile(
    r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+"
    r"|(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?)"
)
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_CLOSES = {"[": "]", "(": ")", "{": "}"}
_ESCAPES = "\n\\'\"abfnrtv01234567xNuU"
_MAX_WORD_CHARS = 4300


class PythonicCalls:
    """Reads a list of calls.

    Attributes:
        calls: the calls that have been read whole.
        complete: whether the list has been closed; only blanks may follow.
        reason: why the last character was refused.
    """

    def __init__(self) -> None:
        self.calls: list[ToolCall] = []
        self.complete = False
        self.reason = ""
        self._word = ""
        self._name = ""
        self._key: str | None = None
        self._arguments: dict[str, Any] = {}
        self._literal = _Literal()
        self._state: Callable[[str], bool] = self._start

    def push(self, char: str) -> bool:
        """Takes the next character; False where no list of calls can go on so."""
        return self._state(char)

    def _refuse(self, reason: str) -> bool:
        self.reason = reason
        return False

    def _start(self, char: str) -> bool:
        if char == "[":
            self._state = self._item
            return True
        return char.isspace() or self._refuse("a list of calls begins with '['")

    def _item(self, char: str) -> bool:
        if char == "]" and self.calls:
            return self._end()
        if char.isidentifier():
            self._word, self._state = char, self._function
            return True
        return char.isspace() or self._refuse("a function's name must come here")

    def _function(self, char: str) -> bool:
        if _in_name(char) or char == ".":
            self._word += char
            return True
        if not _NAME.fullmatch(self._word):
            return self._refuse(f"{self._word!r} is no function's name")
        self._name, self._arguments, self._state = self._word, {}, self._open
        return self._open(char)

    def _open(self, char: str) -> bool:
        if char == "(":
            self._state = self._argument
            return True
        return char.isspace() or self._refuse("'(' must follow a function's name")

    def _argument(self, char: str) -> bool:
        if char == ")":
            return self._call_ended()
        if char == "*":
            self._state = self._star
            return True
        if char.isidentifier():
            self._word, self._state = char, self._argument_name
            return True
        return char.isspace() or self._refuse("an argument's name must come here; positional arguments are not read")

    def _star(self, char: str) -> bool:
        return self._begin_value(None) if char == "*" else self._refuse("positional arguments are not read")

    def _argument_name(self, char: str) -> bool:
        if _in_name(char):
            self._word += char
            return True
        self._state = self._equals
        return self._equals(char)

    def _equals(self, char: str) -> bool:
        if char == "=":
            return self._begin_value(self._word)
        return char.isspace() or self._refuse("'=' must follow an argument's name; positional arguments are not read")

    def _begin_value(self, key: str | None) -> bool:
        self._key, self._literal, self._state = key, _Literal(), self._value
        return True

    def _value(self, char: str) -> bool:
        if not (char in ",)" and self._literal.may_end):
            return self._literal.push(char) or self._refuse(self._literal.reason)
        try:
            value = self._literal.value()
        except ValueError as error:
            return self._refuse(str(error))
        if self._key is None and not isinstance(value, dict):
            return self._refuse("'**' must be followed by a dictionary")
        new = value if self._key is None else {self._key: value}
        if twice := sorted(set(new) & set(self._arguments)):
            return self._refuse(f"the argument {twice[0]!r} is given twice")
        self._arguments.update(new)
        self._state = self._argument
        return char == "," or self._call_ended()

    def _call_ended(self) -> bool:
        self.calls.append(ToolCall(self._name, self._arguments))
        self._state = self._after_call
        return True

    def _after_call(self, char: str) -> bool:
        if char == ",":
            self._state = self._item
            return True
        if char == "]":
            return self._end()
        return char.isspace() or self._refuse("',' or ']' must follow a call")

    def _end(self) -> bool:
        self.complete = True
        self._state = self._after_list
        return True

    def _after_list(self, char: str) -> bool:
        return char.isspace() or self._refuse("nothing may follow the list")


class _Literal:
    """One value: collects its source, in a form that `ast` accepts without a warning, and evaluates it."""

    def __init__(self) -> None:
        self.reason = ""
        self._source: list[str] = []
        self._brackets: list[str] = []
        self._word = ""
        self._quote = ""
        self._raw = self._triple = False
        self._run = 0  # closing quotes seen in a row inside a triple-quoted string
        self._state: Callable[[str], bool] = self._plain

    @property
    def may_end(self) -> bool:
        """Whether a comma or a closing parenthesis here would end the value."""
        return not self._brackets and self._state in (self._plain, self._in_word, self._second_quote)

    def push(self, char: str) -> bool:
        return self._state(char)

    def value(self) -> Any:
        """Raises ValueError where the source is no literal that JSON can hold."""
        if self._word and not self._word_ends():
            raise ValueError(self.reason)
        source = "".join(self._source)
        if not source.strip():
            raise ValueError("an argument has no value")
        try:
            return clean(_evaluate(ast.parse(f"({source})", mode="eval").body))
        except (SyntaxError, RecursionError, MemoryError) as error:
            raise ValueError("an argument's value is no literal") from error

    def _refuse(self, reason: str) -> bool:
        self.reason = reason
        return False

    def _plain(self, char: str) -> bool:
        if char in "'\"":
            self._quote, self._raw, self._state = char, False, self._first_quote
        elif char in _CLOSES:
            if len(self._brackets) == MAX_DEPTH:
                return self._refuse(f"more than {MAX_DEPTH} brackets are open")
            self._brackets.append(char)
        elif char in ")]}":
            if not self._brackets or _CLOSES[self._brackets.pop()] != char:
                return self._refuse("no such bracket is open")
        elif char in ",:":
            if not self._brackets:
                return self._refuse("no bracket is open")
        elif char in " \t\r\n":
            pass
        else:
            self._word, self._state = "", self._in_word
            return self._in_word(char)
        self._source.append(char)
        return True

    def _in_word(self, char: str) -> bool:
        exponent = char in "+-" and self._word[-1:] in ("e", "E")
        if (char.isascii() and (char.isalnum() or char in "_.")) or exponent or (char in "+-" and not self._word):
            self._word += char
            if not self._word[0].isalpha():
                return len(self._word) <= _MAX_WORD_CHARS or self._refuse("a number is too long")
            begins = self._word in ("r", "R") or any(word.startswith(self._word) for word in _WORDS)
            return begins or self._refuse(f"{self._word!r} is no literal")
        if self._word in ("r", "R") and char in "'\"":
            self._source.append("r")
            self._word, self._quote, self._raw, self._state = "", char, True, self._first_quote
            self._source.append(char)
            return True
        return self._word_ends() and self._plain(char)

    def _word_ends(self) -> bool:
        word, self._word, self._state = self._word, "", self._plain
        self._source.append(word)
        if word in _WORDS or _NUMBER.fullmatch(word):
            return True
        return self._refuse(f"{word!r} is no literal" if word else "no literal goes on so")

    def _first_quote(self, char: str) -> bool:
        if char == self._quote:
            self._source.append(char)
            self._state = self._second_quote
            return True
        self._triple, self._state = False, self._string
        return self._string(char)

    def _second_quote(self, char: str) -> bool:
        if char == self._quote:
            self._source.append(char)
            self._triple, self._run, self._state = True, 0, self._string
            return True
        self._state = self._plain
        return self._plain(char)

    def _string(self, char: str) -> bool:
        self._run = self._run + 1 if char == self._quote else 0
        if char == "\\":
            self._state = self._escape
        elif char == self._quote and (not self._triple or self._run == 3):
            self._state = self._plain
        return self._character(char)

    def _escape(self, char: str) -> bool:
        if not self._raw and char in "4567":
            self._word, self._state = char, self._octal
            return True
        self._state = self._string
        if not self._raw and char not in _ESCAPES:
            self._source.append("\\")  # Python keeps the backslash of an escape it does not know, and warns
        elif char == "\n":
            self._source.append(char)
            return True
        return self._character(char)

    def _octal(self, char: str) -> bool:
        """The rest of up to three digits. Above 377 Python warns, so that they are spelt in another way."""
        if char in "01234567" and len(self._word) < 3:
            self._word += char
            return True
        self._source.append(f"u{int(self._word, 8):04x}")
        self._word, self._state = "", self._string
        return self._string(char)

    def _character(self, char: str) -> bool:
        """A character inside quotes, spelt so that Python's parser leaves it as it is."""
        spelt = {"\r": "\\r", "\0": "\\x00", "\n": "\n" if self._triple else "\\n"}.get(char, char)
        if self._raw and spelt != char:
            return self._refuse("a raw string cannot hold this character")
        self._source.append(spelt)
        return True


def _evaluate(node: ast.expr) -> Any:
    """The JSON value of a literal; tuples become lists."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (str, int, float))):
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise ValueError("a number is too large")
        return node.value
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_evaluate(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _evaluate(key) for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("the keys of a dictionary must be strings")
        return dict(zip(keys, map(_evaluate, node.values), strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _evaluate(node.operand)
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return -number if isinstance(node.op, ast.USub) else number
    raise ValueError("an argument's value is no literal")


def _in_name(char: str) -> bool:
    return f"a{char}".isidentifier()
