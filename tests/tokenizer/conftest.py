"""What the tests of the tokenizer share: a small trained tokenizer, Llama 3's own where it is there, and tiktoken."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken

from puna.tokenizer import Tokenizer
from puna.tokenizer.bpe import META_PATTERN

SHARED = Path(__file__).parents[2].parent / "shared/data"
LANGUAGES = "Ünïcödé, żółw, ψυχή, мир, שלום, سلام, नमस्ते, สวัสดี, 你好世界, こんにちは, 안녕 👋🏽 👩‍👩‍👧‍👦 "


def corpus() -> Iterator[str]:
    """A few hundred kilobytes of Python, and a little of everything else."""
    folder = Path(json.__file__).parent
    for path in sorted(folder.glob("*.py")):
        yield path.read_text(encoding="utf-8")
    yield LANGUAGES * 20
    yield "<|begin_of_text|><|eot_id|> {}[]()\r\n\t" * 20


@pytest.fixture(scope="session")
def small() -> Tokenizer:
    return Tokenizer.train(corpus(), 1500)


@pytest.fixture(scope="session")
def llama_file() -> Path:
    path = SHARED / "llama3/tokenizer.model"
    if not path.exists():
        pytest.skip(f"needs Llama 3's vocabulary at {path}")
    return path


@pytest.fixture(scope="session")
def llama(llama_file: Path) -> Tokenizer:
    return Tokenizer.load(llama_file)


@pytest.fixture(scope="session")
def llama_reference(llama: Tokenizer) -> tiktoken.Encoding:
    return reference_of(llama)


@pytest.fixture(scope="session")
def small_reference(small: Tokenizer) -> tiktoken.Encoding:
    return reference_of(small)


def reference_of(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with Meta's own expression."""
    return tiktoken.Encoding(
        "reference",
        pat_str=META_PATTERN,
        mergeable_ranks=dict(tokenizer.ranks),
        special_tokens=dict(tokenizer.special),
    )


@pytest.fixture(scope="session")
def declarations() -> list[str]:
    """The Universal Declaration of Human Rights in some seventy languages, as plain text."""
    files = sorted((SHARED / "udhr").glob("*.html"))
    if not files:
        pytest.skip(f"needs the texts in {SHARED / 'udhr'}")
    return [html.unescape(re.sub(r"<[^>]*>", "", path.read_text(encoding="utf-8"))) for path in files]
