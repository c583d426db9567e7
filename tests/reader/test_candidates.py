"""What could be an answer: every kind of quotation is on the list, and each stands where it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.reader.candidates import LONGEST, candidates, lines

CODE = '''def copyfile(src, dst, *, follow_symlinks=True) -> str:
    """Copy data from src to dst. If it exists, it is replaced.

    More words."""
    if same(src, dst):
        raise SameFileError(src)
    limit = 4 * 1024  # bytes that are read at once

class Reader(io.Base, Mixin):
    def read(self, size=-1):
        """Read up to size bytes
        and return them. Then stop."""
'''
PROSE = """# Tools

A shard is a part of a file. It has a number.

- **port**: The port to listen on.
1. Open the lid.
-v, --verbose   print more of what is done

| option | meaning |
|--------|---------|
| fast   | skip checks |

To start, run:

    $ make start
"""


def texts(text: str) -> list[str]:
    return [text[found.start : found.end] for found in candidates(text)]


@pytest.mark.parametrize(
    "answer",
    [
        "copyfile",
        "src, dst, *, follow_symlinks=True",
        "True",
        "str",
        "Copy data from src to dst.",
        "If it exists, it is replaced.",
        "SameFileError",
        "4 * 1024",
        "bytes that are read at once",
        "Reader",
        "io.Base, Mixin",
        "size=-1",
        "-1",
        "Read up to size bytes\n        and return them.",
    ],
)
def test_a_programs_answers_are_candidates(answer: str) -> None:
    assert answer in texts(CODE)


@pytest.mark.parametrize(
    "answer",
    [
        "A shard is a part of a file.",
        "It has a number.",
        "The port to listen on.",
        "Open the lid.",
        "print more of what is done",
        "skip checks",
        "make start",
    ],
)
def test_the_answers_of_prose_are_candidates(answer: str) -> None:
    assert answer in texts(PROSE)


@pytest.mark.parametrize("quote", ["'", '"', "'''", 'r"""'])
def test_a_quoted_line_ends_where_its_quotation_ends(quote: str) -> None:
    closing = quote.lstrip("r")
    assert "Open the lid" in texts(f"def f():\n    {quote}Open the lid{closing}\n    return 1\n")
    assert not any("lid" in text and "np" in text for text in texts(f"{quote}Open the lid{closing}\n  np.x()\n"))


def test_a_value_knows_its_name() -> None:
    by_text = {CODE[c.start : c.end]: c for c in candidates(CODE)}
    assert (by_text["True"].key, by_text["-1"].key, by_text["4 * 1024"].key) == ("follow_symlinks", "size", "limit")
    assert by_text["bytes that are read at once"].key == "limit"


def test_a_place_is_listed_once_with_all_that_it_looks_like() -> None:
    found = candidates(CODE)
    assert len({(c.start, c.end) for c in found}) == len(found)
    (name,) = [c for c in found if CODE[c.start : c.end] == "copyfile"]
    assert "def" in name.roles


@given(st.text("ab =:,.#()[]\"'|-`*\n\\>1 ", max_size=80))
def test_candidates_of_any_text_lie_in_it_without_white_space_at_their_ends(text: str) -> None:
    for found in candidates(text):
        quoted = text[found.start : found.end]
        assert 0 <= found.start < found.end <= len(text)
        assert len(quoted) <= LONGEST
        assert quoted == quoted.strip()
        start, end = lines(text)[found.line]
        assert start <= found.start < end
