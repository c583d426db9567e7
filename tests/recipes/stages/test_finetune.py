"""The fine-tuning stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from puna.base.config import override
from puna.base.errors import InputError
from puna.base.progress import Silent
from puna.core.chat import Conversation, Message
from puna.data.conversations import read_conversations
from puna.model.checkpoint import Checkpoint
from puna.recipes.raising import RaiseConfig, raise_model
from puna.recipes.stages.finetune import _rendered
from puna.testing import tiny_tokenizer
from puna.tokenizer import Tokenizer


def test_only_answers_are_learnt() -> None:
    tokenizer = tiny_tokenizer()
    conversation = Conversation((Message("user", "ask"), Message("assistant", "tell")))
    ((ids, mask),) = _rendered([conversation], tokenizer)
    assert mask is not None
    assert tokenizer.decode(ids[mask]) == "tell<|eot_id|>"


def test_the_stage_counts_its_conversations(finished_run: Path) -> None:
    metrics = json.loads((finished_run / "sft" / "card.json").read_text())["metrics"]
    lines = (finished_run / "questions" / "conversations.jsonl").read_text().splitlines()
    assert metrics["conversations"] == len(lines)
    assert 0 <= metrics["padding"] < 1
    tokenizer = Tokenizer.load(finished_run / "tokenizer" / "tokenizer")
    conversations = read_conversations(finished_run / "questions" / "conversations.jsonl")
    lengths = [len(tokenizer.chat.render_for_training(conversation)[0]) for conversation in conversations]
    assert metrics["too_long"] == sum(length > 256 for length in lengths) < len(lengths)


def test_it_changes_the_weights_and_keeps_the_tokenizer(finished_run: Path) -> None:
    before, after = (Checkpoint.load(finished_run / stage / "checkpoint") for stage in ("pretrain", "sft"))
    assert before.tokenizer == after.tokenizer
    assert not all(torch.equal(before.weights[name], after.weights[name]) for name in before.weights)


def test_documents_without_questions_are_refused_with_the_way_out(tiny: RaiseConfig, tmp_path: Path) -> None:
    for i, word in enumerate(("north", "south", "east", "west")):
        (tmp_path / f"{word}.txt").write_text(f"{word} {i} " * 300)
    config = override(tiny, [f"documents={tmp_path}", "tokenizer.vocab_size=520", "pretrain.tokens=512"])
    with pytest.raises(InputError, match="no conversation") as caught:
        raise_model(config, tmp_path / "run", Silent())
    assert "--until pretrain" in caught.value.hint
