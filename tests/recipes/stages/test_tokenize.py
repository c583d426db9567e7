"""The tokenizer's stage and the token shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from puna.data import corpus
from puna.data.shards import TokenShards
from puna.tokenizer import Tokenizer


def test_each_document_is_a_segment_between_its_start_and_end(finished_run: Path) -> None:
    tokenizer = Tokenizer.load(finished_run / "tokenizer" / "tokenizer")
    for side in ("train", "held_out"):
        shards = TokenShards(finished_run / "tokens" / side)
        documents = corpus.read(finished_run / "split" / side)
        assert len(shards) == len(documents)
        assert not shards.masked
        for i, document in enumerate(documents):
            ids = shards.ids(i, 0, 10**9)
            assert ids[0] == tokenizer.bos_id
            assert ids[-1] == tokenizer.eos_id
            assert tokenizer.decode(ids[1:-1]) == document.text
            assert not np.any(ids[1:-1] >= tokenizer.base_size)


def test_the_card_says_the_bytes_of_a_token(finished_run: Path) -> None:
    tokenizer = Tokenizer.load(finished_run / "tokenizer" / "tokenizer")
    held_out = corpus.read(finished_run / "split" / "held_out")
    metrics = json.loads((finished_run / "tokenizer" / "card.json").read_text())["metrics"]
    size = sum(len(document.text.encode()) for document in held_out)
    assert metrics["held_out_bytes_per_token"] == size / sum(len(tokenizer.encode(d.text)) for d in held_out)
    assert metrics["vocab_size"] == tokenizer.vocab_size <= 600
