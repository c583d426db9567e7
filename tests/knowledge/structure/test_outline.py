"""One way to the blocks of any document."""

from __future__ import annotations

import pytest

from puna.base.errors import InputError
from puna.knowledge.structure.outline import outline


def test_each_notation_has_its_parser(document):
    assert [block.kind for block in outline(document("# A\n\nb\n", "markdown"))] == ["heading", "paragraph"]
    assert [block.kind for block in outline(document("A\n=\n\nb\n", "rst"))] == ["paragraph", "paragraph"]
    assert [block.kind for block in outline(document("Title\n=====\n", "rst"))] == ["heading"]
    assert [block.kind for block in outline(document("# A\n", "text"))] == ["paragraph"]


def test_a_readers_blocks_come_first(document):
    blocks = outline(document("abc def", "html", blocks=[["heading", 0, 3, 1], ["paragraph", 4, 7, 0]]))
    assert [(block.kind, block.level) for block in blocks] == [("heading", 1), ("paragraph", 0)]


@pytest.mark.parametrize("rows", [[["paragraph", 0, 99, 0]], [["paragraph", 2, 4, 0], ["paragraph", 3, 5, 0]]])
def test_blocks_of_another_text_are_refused(document, rows):
    with pytest.raises(InputError, match=r"page\.html has a block at"):
        outline(document("abc def", "html", "page.html", blocks=rows))
