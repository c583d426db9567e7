"""Which reader reads which file."""

from __future__ import annotations

import pytest

from puna.base.errors import ConfigError
from puna.data.readers.registry import READERS, readers_by_suffix, suffix_of


def test_every_family_is_there_and_no_suffix_has_two_readers():
    suffixes = [suffix for name in READERS for suffix in READERS.get(name).suffixes]
    assert len(suffixes) == len(set(suffixes)) == len(readers_by_suffix())
    assert {".py", ".md", ".markdown", ".rst", ".html", ".htm", ".txt", ".ipynb", ".pdf"} <= set(suffixes)
    assert {".docx", ".csv", ".tsv", ".c", ".js", ".rs"} <= set(suffixes)


@pytest.mark.parametrize(("name", "suffix"), [("A.PY", ".py"), ("x/y.tar.gz", ".gz"), ("README", ""), (".hidden", "")])
def test_suffixes_are_told_in_lower_case(name: str, suffix: str):
    assert suffix_of(name) == suffix


def test_an_unknown_reader_names_the_known_ones():
    with pytest.raises(ConfigError, match="markdown"):
        READERS.get("word")
