"""What keeps the house readable: files and functions that fit into a head, and a test file for each source file.

`src/puna/a/b.py` is tested in `tests/a/test_b.py`, and `src/puna/a/b/c.py` in `tests/a/b/test_c.py`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "puna"
FILES = sorted(PACKAGE.rglob("*.py"))
TESTED = [path for path in FILES if not path.name.startswith("__")]

FILE_LINES = 500
FUNCTION_LINES = 70
PARAMETERS = 9


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of the parameters, the object itself left out."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def test_there_is_something_to_measure() -> None:
    assert len(FILES) > 20
    assert sum(len(functions(path)) for path in FILES) > 100


def assert_none(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)


def test_no_file_is_too_long() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert_none([f"{file} has {n} lines" for file, n in lengths.items() if n > FILE_LINES])


def test_no_function_is_too_long() -> None:
    lengths = {
        f"{name(path)}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in FILES
        for function in functions(path)
    }
    assert_none([f"{function} has {n} lines" for function, n in lengths.items() if n > FUNCTION_LINES])


def test_no_function_has_too_many_parameters() -> None:
    counts = {
        f"{name(path)}: {function.name}": len(parameters(function)) for path in FILES for function in functions(path)
    }
    assert_none([f"{function} has {n} parameters" for function, n in counts.items() if n > PARAMETERS])


def test_every_file_says_what_it_is() -> None:
    described = {path: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES}
    silent = [path for path, text in described.items() if path.name != "__init__.py" and not text]
    assert_none([f"{name(path)} does not open with a docstring" for path in silent])


def test_every_file_has_a_test_file() -> None:
    mirrors = {path: Path("tests") / path.relative_to(PACKAGE).with_name(f"test_{path.name}") for path in TESTED}
    assert_none([f"{name(path)} has no {mirror}" for path, mirror in mirrors.items() if not (ROOT / mirror).exists()])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(self, a, /, b, *c, d, **e): ...", ["a", "b", "d", "c", "e"]),
        ("async def f(cls): ...", []),
        ("def f(): ...", []),
    ],
)
def test_every_kind_of_parameter_counts(tmp_path: Path, code: str, expected: list[str]) -> None:
    (tmp_path / "a.py").write_text(code)
    (function,) = functions(tmp_path / "a.py")
    assert parameters(function) == expected
