"""Runs the tests of a piece of code inside a sandbox, each in a fork of a process that has never run the code.

Its text is handed to `python -I -S -c` (`puna.sandbox.feedback`), with one JSON object on standard input: `code`,
`tests`, `seconds` for each, and a `token`. For every test it prints a line of JSON. A test passes if the code and then
the test run to their end; the child says so with the token, so that code which merely exits, or prints what looks like
a verdict, passes nothing. Code written to search its own process for the token could still forge a verdict: what judges
the code shares a process with it, as in every harness that calls functions directly.

Processes that a test leaves behind would take time and memory from the next. The harness then leaves with exit code
`LEFTOVERS`, the sandbox ends them, and the tests that remain are run in another one.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import json
import os
import reprlib
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

DETAIL = 2000  # characters
LEFTOVERS = 75
PR_SET_CHILD_SUBREAPER = 36
SLACK = 0.5  # seconds between the child's own alarm and its parent's

shown = reprlib.Repr()
shown.maxstring = shown.maxother = 200
shown.maxlong = 80
shown.maxlist = shown.maxtuple = shown.maxdict = shown.maxset = 20


class ShowValues(ast.NodeTransformer):
    """`assert f(x) == y` that fails says what both sides were. Each side is evaluated once, as before."""

    def __init__(self, source: str) -> None:
        self.source = source

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        if not isinstance(node.test, ast.Compare) or len(node.test.ops) != 1:
            return node
        names = [ast.arg("a"), ast.arg("b")]
        arguments = ast.arguments(posonlyargs=[], args=names, kwonlyargs=[], kw_defaults=[], defaults=[])
        a, b = ast.Name("a", ast.Load()), ast.Name("b", ast.Load())
        compare = ast.Lambda(arguments, ast.Compare(a, node.test.ops, [b]))
        text = ast.get_source_segment(self.source, node) or "assert"
        sides = [node.test.left, node.test.comparators[0]]
        node.test = ast.Call(ast.Name("__compared__", ast.Load()), [*sides, compare, ast.Constant(text)], [])
        return node


def compared(left: Any, right: Any, compare: Callable[[Any, Any], Any], text: str) -> bool:
    if compare(left, right):
        return True
    raise AssertionError(f"{text}: left is {shown.repr(left)}, right is {shown.repr(right)}")


def explain(error: BaseException, sources: dict[str, str]) -> str:
    """The error, and the line of the code or of the test that it came from."""
    where, trace = "", error.__traceback__
    while trace is not None:
        name, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        if name in sources:
            where = f" (line {line} of the {name}: {sources[name].splitlines()[line - 1].strip()})"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}"[:DETAIL] + where[:DETAIL]


def judge(code: str, test: str) -> dict[str, str]:
    """In the child: runs the code, then the test."""
    sources = {"code": code, "test": test}
    space: dict[str, Any] = {"__name__": "solution", "__compared__": compared}
    try:
        exec(compile(code, "code", "exec"), space)
        tree = ast.fix_missing_locations(ShowValues(test).visit(ast.parse(test, "test")))
        exec(compile(tree, "test", "exec"), space)
    except BaseException as error:  # SystemExit too: code that leaves has not passed
        return {"outcome": "failed", "detail": explain(error, sources)}
    return {"outcome": "passed", "detail": ""}


def verdict(code: str, test: str, seconds: float, token: str) -> dict[str, str]:
    """What became of one test, in a fork."""
    answer, say = os.pipe()
    child = os.fork()
    if child == 0:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        told = {**judge(code, test), "token": token}
        signal.setitimer(signal.ITIMER_REAL, 0)
        text = json.dumps(told).encode() + b"\n"
        while text:
            text = text[os.write(say, text) :]
        os._exit(0)
    os.close(say)
    text, deadline = b"", time.monotonic() + seconds + SLACK
    while (rest := deadline - time.monotonic()) > 0 and select.select([answer], [], [], rest)[0]:
        piece = os.read(answer, 1 << 16)
        text += piece
        if not piece or text.endswith(b"\n") or len(text) > 1 << 20:
            break  # not only at the pipe's end, which a process left behind may hold open
    late = time.monotonic() >= deadline
    os.close(answer)
    with contextlib.suppress(OSError):  # where a program may send no signals, the child's own alarm has to do
        os.kill(child, signal.SIGKILL) if late else None
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ValueError):
        told = json.loads(text)
        if isinstance(told, dict) and told.pop("token", None) == token:
            return told
    if late or status == -signal.SIGALRM:
        return {"outcome": "timed out", "detail": f"not finished after {seconds:g} seconds"}
    how = f"was ended by signal {-status}" if status < 0 else f"left with exit code {status}"
    return {"outcome": "failed", "detail": f"the code {how} before the test was finished"}


def leftovers() -> bool:
    """Whether processes of a test are still there after a moment. The kernel gives those without a parent to us."""
    for _ in range(10):
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue
        except ChildProcessError:
            return False
        time.sleep(0.005)
    return True


def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    job = json.load(sys.stdin)
    for index, test in enumerate(job["tests"]):
        begun = time.monotonic()
        told = verdict(job["code"], test, job["seconds"], job["token"])
        print(json.dumps({**told, "index": index, "seconds": time.monotonic() - begun}), flush=True)
        if leftovers():
            sys.exit(LEFTOVERS)


if __name__ == "__main__":
    main()
