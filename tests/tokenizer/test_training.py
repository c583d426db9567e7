from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import ConfigError, InputError
from puna.base.progress import Lines
from puna.tokenizer import Tokenizer, training
from puna.tokenizer.bpe import META_PATTERN
from puna.tokenizer.formats import byte_order
from puna.tokenizer.training import parts, train_ranks

TEXTS = ["low lower lowest newer newest wide wider widest\n" * 3, "the cat sat on the mat, the cat that sat"]


def slow_ranks(texts: list[str], size: int, min_frequency: int) -> dict[bytes, int]:
    """BPE as Sennrich et al. wrote it (arXiv 1508.07909): join the most frequent pair, the lower ids first on a tie."""
    words = Counter(piece.encode() for text in texts for piece in regex.findall(META_PATTERN, text))
    tokens = [bytes([byte]) for byte in byte_order()]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    split = {word: [bytes([byte]) for byte in word] for word in words}
    while len(ranks) < size:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, symbols in split.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ranks[pair[0]], ranks[pair[1]]))
        if pairs[best] < min_frequency:
            break
        whole = best[0] + best[1]
        ranks.setdefault(whole, len(ranks))
        for word, symbols in split.items():
            joined: list[bytes] = []
            at = 0
            while at < len(symbols):
                both = tuple(symbols[at : at + 2]) == best
                joined.append(whole if both else symbols[at])
                at += 2 if both else 1
            split[word] = joined
    return ranks


@pytest.mark.parametrize("min_frequency", [1, 2, 5])
def test_merges_are_those_of_the_textbook(min_frequency: int) -> None:
    for size in (256, 260, 300, 1000):
        assert train_ranks(TEXTS, size, min_frequency) == slow_ranks(TEXTS, size, min_frequency)


def test_the_bytes_come_first_and_rank_0_is_an_exclamation_mark(small: Tokenizer) -> None:
    assert small.token_bytes(0) == b"!"
    assert [small.ranks[bytes([byte])] for byte in byte_order()] == list(range(256))


def test_runs_and_threads_do_not_change_the_result(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import hashlib, json, pathlib\n"
        "from puna.tokenizer.formats import tiktoken_bytes\n"
        "from puna.tokenizer.training import train_ranks\n"
        "texts = [p.read_text() for p in sorted(pathlib.Path(json.__file__).parent.glob('*.py'))]\n"
        "print(hashlib.sha256(tiktoken_bytes(train_ranks(texts, 1000))).hexdigest())\n",
        encoding="utf-8",
    )
    results = set()
    for number, threads in enumerate("114"):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": str(number)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        results.add(subprocess.run([sys.executable, script], env=environment, capture_output=True, check=True).stdout)
    assert len(results) == 1


def test_a_generator_is_read_once() -> None:
    given_out = []

    def texts() -> Iterator[str]:
        for text in TEXTS:
            given_out.append(text)
            yield text

    assert train_ranks(texts(), 300) == train_ranks(TEXTS, 300)
    assert given_out == TEXTS


def test_a_small_corpus_gives_fewer_tokens() -> None:
    assert len(train_ranks(["aaa aaa"], 5000)) == 258
    assert len(train_ranks([], 5000)) == 256


def test_too_large_a_corpus_is_refused_before_counts_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MAX_BYTES", 100)
    train_ranks(["é" * 25, "é" * 25], 300)
    with pytest.raises(InputError, match="larger than 100 bytes") as caught:
        train_ranks(["é" * 25, "é" * 26], 300)
    assert "sample" in caught.value.hint


@pytest.mark.parametrize("item", [b"bytes", 5, None])
def test_what_is_no_text_is_refused(item: object) -> None:
    with pytest.raises(InputError, match="Text 1 of the corpus is of type"):
        train_ranks(["a", item], 300)  # type: ignore[list-item]


def test_an_error_of_the_texts_passes_through() -> None:
    def texts() -> Iterator[str]:
        yield "a"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        train_ranks(texts(), 300)


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match="255"):
        train_ranks(TEXTS, 255)
    with pytest.raises(ConfigError, match="min_frequency"):
        train_ranks(TEXTS, 300, min_frequency=0)


def test_surrogates_do_not_stop_it() -> None:
    assert train_ranks(["a\ud800b " * 5], 300) == train_ranks(["a\ufffdb " * 5], 300)


def test_progress_counts_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    train_ranks(["é" * 50], 260, progress=Lines(every=0))
    assert "100 bytes" in capsys.readouterr().err


@given(text=st.text(alphabet="ab 1!\n\r\t\u3000é", max_size=80))
def test_parts_split_as_the_whole(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_PART_CHARS", 5)
        found = list(parts(text))
    assert "".join(found) == text
    assert [piece for part in found for piece in regex.findall(META_PATTERN, part)] == regex.findall(META_PATTERN, text)


def test_long_texts_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_PART_CHARS", 5)
    assert list(parts("abcdef\nghijkl\n\n mno\npq")) == ["abcdef\n", "ghijkl\n\n mno\n", "pq"]
