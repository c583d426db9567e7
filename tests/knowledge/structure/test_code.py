"""Source code as syntax units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.document import Document
from puna.knowledge.chunk import chunk
from puna.knowledge.structure.code import CodeUnit, parse, units
from puna.knowledge.structure.outline import outline
from puna.knowledge.structure.tree import Unit, tree

C = """#include <stdio.h>

/* Adds two
 * numbers { not a brace }. */
static int add(int a, int b)
{
    if (a) { return a + b; }
    return b;
}

struct point { int x; int y; };

// Says "}" and hello.
void hello(void) {
    printf("}{ %d", add(1, 2));
}
"""
JAVASCRIPT = """import x from "y";

/** A stack. */
export class Stack {
  constructor(items) {
    this.items = items;
  }

  // Adds.
  push(item) {
    for (const i of item) { this.items.push(i); }
  }
}

export const size = (stack) => {
  return stack.items.length;
};

async function main() {
  await run(`${a} {`);
}
"""
RUST = """use std::fmt;

/// A point.
#[derive(Clone)]
pub struct Point { x: f32 }

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.x)
    }
}

pub fn main() {}
"""
GO = """package main

// Push adds.
func (s *Stack) Push(x int) {
	s.items = append(s.items, x)
}

type Stack struct {
	items []int
}
"""
RUBY = """# A stack.
class Stack
  def push(item)
    @items << item # adds
  end
end

def main
  puts "x"
end
"""
SHELL = """#!/bin/sh
# Says hello.
hello() {
  echo "} {"
}

main
"""


def titles(found: list[CodeUnit]) -> list[object]:
    return [[unit.title, titles(unit.inner)] if unit.inner else unit.title for unit in found]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (C, "c", ["add()", "struct point", "hello()"]),
        (JAVASCRIPT, "javascript", [["class Stack", ["constructor()", "push()"]], "size()", "function main"]),
        (RUST, "rust", ["struct Point", ["impl fmt::Display for Point", ["fn fmt"]], "fn main"]),
        (GO, "go", ["func Push", "type Stack"]),
        (RUBY, "ruby", ["class Stack", "def main"]),
        (SHELL, "shell", ["hello()"]),
    ],
)
def test_what_is_declared(text: str, language: str, expected: list[object]):
    assert titles(units(text, language)) == expected


def test_a_unit_begins_with_its_comment_and_ends_with_its_brace():
    add, point, hello = units(C, "c")
    assert C[add.start : add.end].startswith("/* Adds two")
    assert C[add.start : add.end].endswith("return b;\n}")
    assert C[point.start : point.end] == "struct point { int x; int y; };"
    assert C[hello.start : hello.end].startswith('// Says "}" and hello.')


def test_passages_are_cut_between_functions_and_named():
    document = Document(C, "c", "a.c", meta={"kind": "code", "language": "c"})
    passages = chunk(document, 130)
    assert "".join(passage.text for passage in passages) == C
    assert [passage.heading for passage in passages if "int add" in passage.text] == ["add()"]
    assert all("return b;" in passage.text for passage in passages if "int add" in passage.text)


def test_code_is_no_prose():
    assert [block.kind for block in parse(C)] == ["code"]
    assert parse(" \n") == []
    assert [b.kind for b in outline(Document(C, "c", "a.c", meta={"kind": "code"}))] == ["code"]


def assert_tiled(unit: Unit) -> None:
    if unit.children:
        assert unit.children[0].start == unit.start
        assert unit.children[-1].end == unit.end
        for before, after in zip(unit.children, unit.children[1:], strict=False):
            assert before.end == after.start
    for child in unit.children:
        assert_tiled(child)


@given(st.text(alphabet="af (){};\n/*\"'#`:=", max_size=200), st.sampled_from(["c", "ruby", "shell", "rust"]))
def test_any_text_is_covered(text: str, language: str):
    root = tree(Document(text, "x", "x", meta={"kind": "code", "language": language}))
    assert (root.start, root.end) == (0, len(text))
    assert_tiled(root)


LINES = [line for text in (RUST, C, RUBY, JAVASCRIPT) for line in text.splitlines()]


@given(st.lists(st.sampled_from(LINES), max_size=40), st.sampled_from(["c", "ruby", "javascript"]))
def test_any_mixture_of_lines_is_covered(lines: list[str], language: str):
    assert_tiled(tree(Document("\n".join(lines), "x", "x", meta={"kind": "code", "language": language})))
