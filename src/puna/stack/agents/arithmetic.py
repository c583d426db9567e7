"""Arithmetic from a text, for the calculator: numbers, operators and a few functions, and nothing that can run on."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from puna.base.errors import InputError

_LONGEST = 500
_MOST_BITS = 4096
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_NAMES = {"pi": math.pi, "e": math.e}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(math, name) for name in ("sqrt", "sin", "cos", "tan", "log", "log2", "log10", "exp", "floor", "ceil")
} | {"abs": abs, "round": round, "min": min, "max": max}


def evaluate(text: str) -> str:
    """The value of an expression.

    Raises:
        InputError: what is no arithmetic, or has no value.
    """
    if len(text) > _LONGEST:
        raise InputError(f"The expression has {len(text)} characters; {_LONGEST} are allowed.")
    try:
        tree = ast.parse(text.strip().replace("^", "**"), mode="eval")
        value = _value(tree.body)
        return str(value)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{text[:80]!r} has no value: {error}.") from error


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _bounded(_FUNCTIONS[name](*map(_value, arguments)))
    raise InputError(f"The expression holds {ast.unparse(node)[:40]!r}, which is no arithmetic.")


def _power(base: int | float, exponent: int | float) -> int | float:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _MOST_BITS:
        raise InputError(f"{base}**{exponent} is too large a number.")
    value = base**exponent
    if isinstance(value, complex):
        raise InputError(f"{base}**{exponent} is no real number.")
    return value


def _bounded(value: int | float) -> int | float:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise InputError("A number on the way is too large.")
    return value
