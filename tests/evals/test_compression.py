from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from puna.core.document import Document
from puna.evals import compression
from puna.evals.compression import xz_bits

PROSE = Path(__file__).read_text(encoding="utf-8") * 3 + "Żółw: 甲龜 🐢\n" * 50


def documents(*texts: str) -> list[Document]:
    return [Document(text, str(i)) for i, text in enumerate(texts)]


def xz(data: bytes) -> int:
    """What the command line tool makes of it, in bytes."""
    if shutil.which("xz") is None:
        pytest.skip("the command xz is not installed")
    return len(subprocess.run(["xz", "-9e", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout)


@pytest.mark.parametrize("texts", [["x"], [PROSE], [PROSE, PROSE[::-1], "end"]])
def test_it_is_what_xz_gives_within_a_few_bytes_of_its_container(texts: list[str]):
    size = len("".join(texts).encode())
    found = xz_bits([], documents(*texts)).alone * size / 8
    assert found == pytest.approx(xz("".join(texts).encode()), abs=16)


def test_given_is_what_the_text_adds_to_the_training_text():
    train, text = PROSE, PROSE[100:900] + "and something new"
    found = xz_bits(documents(train), documents(text)).given * len(text.encode()) / 8
    assert found == pytest.approx(xz((train + text).encode()) - xz(train.encode()), abs=16)


def test_text_that_was_seen_costs_next_to_nothing():
    noise = random.Random(0).randbytes(3000).hex()
    bits = xz_bits(documents(noise), documents(noise))
    assert 3.9 < bits.alone < 4.7  # four bits a digit
    assert bits.given < 0.1
    assert bits.covered


def test_a_training_text_beyond_the_dictionary_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compression, "XZ_DICTIONARY", 4096)
    assert xz_bits(documents("x" * 4000), documents("y" * 96)).covered
    assert not xz_bits(documents("x" * 4000), documents("y" * 97)).covered


def test_no_text_costs_nothing():
    assert xz_bits(documents("x"), []) == xz_bits([], documents("")) == compression.XzBits(0.0, 0.0, True)
