"""The pre-training stage: the shape that comes out, and the change of context length on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.data.shards import TokenShards
from puna.model.checkpoint import Checkpoint
from puna.recipes.stages.pretrain import PretrainConfig, _curriculum


def test_the_model_takes_the_tokenizers_vocabulary_and_the_longest_context(finished_run: Path) -> None:
    checkpoint = Checkpoint.load(finished_run / "pretrain" / "checkpoint")
    assert checkpoint.tokenizer is not None
    assert checkpoint.config.vocab_size == checkpoint.tokenizer.vocab_size
    assert checkpoint.config.bos_token_id == checkpoint.tokenizer.bos_id
    assert set(checkpoint.config.eos_token_id) == set(checkpoint.tokenizer.stop_ids)
    assert checkpoint.config.max_position_embeddings == 256  # of the fine-tuning, which is longer here


def test_rows_grow_in_the_last_part(finished_run: Path) -> None:
    shards = TokenShards(finished_run / "tokens" / "train")
    config = PretrainConfig(
        context_length=64, final_context_length=128, final_context_share=0.25, batch_tokens=512, micro_batch_tokens=256
    )
    source = _curriculum(shards, 8, config)
    widths = [source.micro_batches(step)[0].ids.shape[1] for step in range(8)]
    assert widths == [64] * 6 + [128] * 2
    assert {batch.ids.size for step in (0, 7) for batch in source.micro_batches(step)} == {256}


def test_the_card_counts_what_was_done(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "pretrain" / "card.json").read_text())["metrics"]
    rows = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["stage"] == "pretrain"][-1]
    assert metrics["steps"] == last["step"] == 8
    assert metrics["tokens"] == last["tokens"]
    assert metrics["rows"] == {"loss": last["loss"], "held_out_loss": last["held_out_loss"]}
    assert metrics["parameters"] == sum(
        tensor.numel() for tensor in Checkpoint.load(finished_run / "pretrain" / "checkpoint").weights.values()
    )


@pytest.mark.parametrize("length", [32, 16384])
def test_a_final_context_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(ConfigError, match="final_context_length"):
        PretrainConfig(context_length=64, batch_tokens=8192, final_context_length=length)
