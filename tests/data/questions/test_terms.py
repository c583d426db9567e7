"""Terms and what is said of them."""

from __future__ import annotations

import pytest

from puna.data.questions.terms import find

IS = {"be": "is", "do": "does"}
ARE = {"be": "are", "do": "do"}


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("Shard\n: A part of a file.\n", "markdown", ("term", {"name": "Shard", **IS}, "A part of a file.")),
        ("- **Shards**: The parts of a file.\n", "markdown",
         ("term", {"name": "Shards", **ARE}, "The parts of a file.")),
        ("- `--port`: Number of the port.\n", "markdown", ("option", {"name": "--port"}, "Number of the port.")),
        ("`read_all` -- Reads it until the end.\n", "markdown",
         ("symbol", {"name": "read_all"}, "Reads it until the end.")),
        ("* Shard: A part of a file.\n", "text", ("term", {"name": "Shard", **IS}, "A part of a file.")),
        ("term\n  What it means here.\n", "rst", ("term", {"name": "term", **IS}, "What it means here.")),
        (".. function:: go(x)\n\n   Begin the long journey.\n", "rst", ("symbol", {"name": "go"}, None)),
        (".. envvar:: GO_HOME\n\n   Where the tools are kept.\n", "rst",
         ("symbol", {"name": "GO_HOME"}, "Where the tools are kept.")),
    ],
)  # fmt: skip
def test_terms(found, text: str, kind: str, expected: tuple[str, dict[str, str], str | None]):
    assert found(find, text, kind) == ([expected] if expected[2] else [])


@pytest.mark.parametrize(
    "text",
    [
        "- **npm**: Upgrade the package to 2.1 now.\n",  # what was done to it
        "- Issue 123: the thing was broken before.\n",
        "- run.py: use a queue instead of sleep.\n",
        "Note: this is a note about it.\n",
        "- **Note**: this is a note about it.\n",
        "- **See [this](x)**: a link to another page.\n",
        "- **Shard**: short one.\n",
    ],
)
def test_what_looks_like_a_term_and_is_none(found, text: str):
    assert found(find, text, "markdown") == []


def test_definition_lists_of_web_pages(found):
    text = "Cut\nCopy the selection and delete it."
    blocks = [["term", 0, 3, 0], ["definition", 4, len(text), 0]]
    assert found(find, text, "html", blocks=blocks) == [
        ("term", {"name": "Cut", **IS}, "Copy the selection and delete it.")
    ]
