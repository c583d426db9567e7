"""Tokenizers as GGUF metadata, there and back; what is not Llama 3's is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from puna.base.errors import CheckpointError, TokenizerError
from puna.export.gguf_vocab import end_ids, read_tokenizer, write_tokenizer
from puna.model.config import ModelConfig
from puna.testing import tiny_config, tiny_tokenizer
from puna.tokenizer import Tokenizer
from puna.tokenizer.formats import to_bytes

from .conftest import as_read


def metadata(tokenizer: Tokenizer | None, config: ModelConfig) -> dict[str, Any]:
    """What a reader finds: values without their kinds."""
    return as_read(write_tokenizer(tokenizer, config))


def config_of(tokenizer: Tokenizer, spare: int = 0) -> ModelConfig:
    return tiny_config().with_vocabulary(tokenizer.vocab_size + spare, tokenizer.bos_id, tokenizer.stop_ids)


@pytest.mark.parametrize("spare", [0, 5])
def test_a_tokenizer_comes_back_equal(trained_tokenizer: Tokenizer, spare: int) -> None:
    found = metadata(trained_tokenizer, config_of(trained_tokenizer, spare))
    assert len(found["tokenizer.ggml.tokens"]) == trained_tokenizer.vocab_size + spare, "one for each row of the model"
    back = read_tokenizer(found, "x")
    assert back == trained_tokenizer
    assert back is not None
    assert back.encode("def go(north): 12345") == trained_tokenizer.encode("def go(north): 12345")


def test_the_real_tokenizer_comes_back_equal(llama3_vocabulary: Path) -> None:
    tokenizer = Tokenizer.load(llama3_vocabulary)
    found = metadata(tokenizer, config_of(tokenizer))
    assert len(found["tokenizer.ggml.merges"]) == 280_147
    assert found["tokenizer.ggml.tokens"][128009] == "<|eot_id|>"
    assert found["tokenizer.ggml.eos_token_id"] == 128009
    assert read_tokenizer(found, "x") == tokenizer


def test_tokens_are_in_gpt2s_letters_and_typed(trained_tokenizer: Tokenizer) -> None:
    found = metadata(trained_tokenizer, config_of(trained_tokenizer, 1))
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    base = trained_tokenizer.base_size
    assert tokens[trained_tokenizer.ranks[b" "]] == "Ġ"
    assert tokens[trained_tokenizer.bos_id] == "<|begin_of_text|>"
    assert set(types[:base]) == {1}
    assert set(types[base:-1]) == {3}
    assert (tokens[-1], types[-1]) == (f"[PAD{len(tokens) - 1}]", 5)
    merges = found["tokenizer.ggml.merges"]
    ranks = [trained_tokenizer.ranks[to_bytes(merge.replace(" ", ""))] for merge in merges]
    assert ranks == sorted(ranks)
    assert set(ranks) == set(range(256, base))


def test_a_model_without_a_tokenizer_says_so() -> None:
    found = metadata(None, tiny_config())
    assert found["tokenizer.ggml.model"] == "none"
    assert "tokenizer.ggml.tokens" not in found
    assert read_tokenizer(found, "x") is None
    assert end_ids(found) == tiny_config().eos_token_id


def test_the_template_is_the_tokenizers(trained_tokenizer: Tokenizer) -> None:
    found = metadata(trained_tokenizer, config_of(trained_tokenizer))
    assert found["tokenizer.chat_template"] == trained_tokenizer.chat_template()


# Ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_ends_come_back_in_their_order(count: int) -> None:
    tokenizer = tiny_tokenizer()
    ends = tokenizer.stop_ids[::-1][:count]
    assert end_ids(metadata(tokenizer, replace(tiny_config(), eos_token_id=ends))) == ends


def test_a_base_model_ends_a_text_and_a_chat_model_a_turn() -> None:
    tokenizer = tiny_tokenizer()
    base = metadata(tokenizer, replace(tiny_config(), eos_token_id=(tokenizer.eos_id,)))
    assert base["tokenizer.ggml.eos_token_id"] == tokenizer.eos_id
    assert "tokenizer.ggml.eot_token_id" not in base
    chat = metadata(tokenizer, tiny_config())
    assert chat["tokenizer.ggml.eos_token_id"] == chat["tokenizer.ggml.eot_token_id"] == tokenizer.eot_id
    assert chat["tokenizer.ggml.eom_token_id"] == tokenizer.eom_id


def test_the_ends_of_a_foreign_or_edited_file_are_those_of_the_common_keys() -> None:
    keys = {"tokenizer.ggml.eos_token_id": 9, "tokenizer.ggml.eom_token_id": 8}
    assert end_ids(keys) == (8, 9)
    assert end_ids(keys | {"puna.eos_token_ids": np.array([1, 2])}) == (8, 9)
    assert end_ids({}) == ()


def test_a_foreign_file_ends_where_llama_cpp_ends(trained_tokenizer: Tokenizer) -> None:
    """By name, whatever its keys say."""
    found = metadata(trained_tokenizer, config_of(trained_tokenizer))
    del found["puna.eos_token_ids"], found["tokenizer.ggml.eom_token_id"]
    assert end_ids(found) == trained_tokenizer.stop_ids


# What is refused ------------------------------------------------------------------------------------------------------


def edited(tokenizer: Tokenizer, changes: Mapping[str, Any]) -> dict[str, Any]:
    found = metadata(tokenizer, config_of(tokenizer))
    return {key: value for key, value in (found | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "of the kind 'llama'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "the split 'qwen2'"),
        ({"tokenizer.ggml.pre": None}, "the split None"),
        ({"tokenizer.ggml.merges": []}, "lists 0 merges"),
        ({"tokenizer.ggml.merges": None}, "lists 0 merges"),
    ],
)
def test_another_tokenizer_is_refused(trained_tokenizer: Tokenizer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenizerError, match=f"x .*{message}"):
        read_tokenizer(edited(trained_tokenizer, changes), "x")


def test_merges_in_another_order_are_refused(trained_tokenizer: Tokenizer) -> None:
    merges = metadata(trained_tokenizer, config_of(trained_tokenizer))["tokenizer.ggml.merges"]
    with pytest.raises(TokenizerError, match="in another order"):
        read_tokenizer(edited(trained_tokenizer, {"tokenizer.ggml.merges": merges[::-1]}), "x")


def test_lists_that_contradict_each_other_are_refused(trained_tokenizer: Tokenizer) -> None:
    found = metadata(trained_tokenizer, config_of(trained_tokenizer))
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    with pytest.raises(CheckpointError, match="lists no tokens"):
        read_tokenizer(edited(trained_tokenizer, {"tokenizer.ggml.tokens": None}), "x")
    with pytest.raises(CheckpointError, match=r"types of tokens"):
        read_tokenizer(edited(trained_tokenizer, {"tokenizer.ggml.token_type": types[:-1]}), "x")
    with pytest.raises(TokenizerError, match="no letter of GPT-2"):
        read_tokenizer(edited(trained_tokenizer, {"tokenizer.ggml.tokens": ["\n", *tokens[1:]]}), "x")
    with pytest.raises(TokenizerError, match="is of type 1; special tokens must follow"):
        read_tokenizer(edited(trained_tokenizer, {"tokenizer.ggml.token_type": np.array([*types[:-1], 1])}), "x")
    with pytest.raises(TokenizerError, match="one name to several"):
        read_tokenizer(edited(trained_tokenizer, {"tokenizer.ggml.tokens": [*tokens[:-1], tokens[-2]]}), "x")
