"""`puna tokenizer`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from puna.tokenizer import Tokenizer


def test_train_encode_decode_convert(puna, documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tokenizer"
    code, out, _ = puna("tokenizer", "train", documents, folder, "--vocab-size", "560", "-q")
    assert code == 0
    tokenizer = Tokenizer.load(folder)
    assert f"{tokenizer.vocab_size:,} ids" in out
    text = "Walk to the north <|eot_id|>"
    ids = json.loads(puna("tokenizer", "encode", folder, text, "--bos")[1])
    assert ids == tokenizer.encode(text, bos=True)
    assert tokenizer.eot_id not in ids
    assert tokenizer.eot_id in json.loads(puna("tokenizer", "encode", folder, text, "--allow-special")[1])
    assert puna("tokenizer", "decode", folder, *map(str, ids[1:]))[1] == text + "\n"
    assert len(puna("tokenizer", "encode", folder, text, "--pieces")[1].splitlines()) == len(ids) - 1
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert json.loads(puna("tokenizer", "encode", folder)[1]) == ids[1:]
    assert puna("tokenizer", "convert", folder / "tokenizer.model", tmp_path / "other")[0] == 0
    assert Tokenizer.load(tmp_path / "other") == tokenizer


def test_a_vocabulary_that_is_too_small_is_refused(puna, documents: Path, tmp_path: Path) -> None:
    code, _, err = puna("tokenizer", "train", documents, tmp_path / "t", "--vocab-size", "300", "-q")
    assert code == 2
    assert "512" in err
    assert not (tmp_path / "t").exists()
