"""Documents as trees that tile the text."""

from __future__ import annotations

import pytest

from puna.knowledge.structure.tree import Unit, tree

SOURCE = '''"""Module."""

import os

# about f
@decorator
def f(a,
      b):
    """Doc."""
    if a:
        return 1
    else:
        return 2


class C(Base):
    """Doc."""

    x = 1; y = 2

    def m(self): pass
'''


def tiles(unit: Unit) -> bool:
    if not unit.children:
        return True
    at = unit.start
    for child in unit.children:
        if child.start != at or not tiles(child):
            return False
        at = child.end
    return at == unit.end


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (SOURCE, "python"),
        ("", "python"),
        ("def broken(:\n  x\n\nmore\n", "python"),
        ("lead\n\n# A\n\ntext\n\n## B\n\n- x\n\n# C\n", "markdown"),
        ("# A\n### C\n## B\n# D\n", "markdown"),
        ("\n\n", "text"),
        ("T\n===\n\nterm\n  def\n", "rst"),
    ],
)
def test_the_parts_of_every_node_tile_it(document, text: str, kind: str):
    root = tree(document(text, kind))
    assert (root.start, root.end) == (0, len(text))
    assert tiles(root)


def test_comments_and_decorators_stay_with_their_definition(document):
    root = tree(document(SOURCE))
    texts = {unit.title: SOURCE[unit.start : unit.end] for unit in root.children}
    assert texts["def f"].startswith("\n# about f\n@decorator\ndef f(a,")
    head = next(unit for unit in root.children if unit.title == "def f").children[0]
    assert SOURCE[head.start : head.end].endswith('"""Doc."""\n')


def test_sections_nest_by_level(document):
    text = "# A\n\na\n\n## B\n\nb\n\n# C\n\nc\n"
    root = tree(document(text, "markdown"))
    names = [(unit.title, [child.title for child in unit.children]) for unit in root.children if unit.title]
    assert names == [("A", ["", "B"]), ("C", [""])]


def test_a_definition_and_a_code_block_stay_with_what_introduces_them(document):
    text = "Term\n: Definition.\n\nother\n\nRun this:\n\n```\nls\n```\n"
    root = tree(document(text, "markdown"))
    leaves = [text[unit.start : unit.end] for unit in root.children]
    assert any("Term" in leaf and "Definition" in leaf for leaf in leaves)
    assert any("Run this:" in leaf and "ls" in leaf for leaf in leaves)
    assert len(leaves) == 3
