from __future__ import annotations

import pytest

from puna.base.errors import ConfigError
from puna.tokenizer.special import least_count, roles, special_count, special_tokens

BASE = 128_000


def by_id(names: str = "3.1", count: int | None = None) -> dict[int, str]:
    return {id: name for name, id in special_tokens(BASE, count, names).items()}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("3.1", {128002: "reserved_special_token_0", 128005: "reserved_special_token_2", 128008: "eom_id"}),
        ("3.1", {128011: "reserved_special_token_3", 128255: "reserved_special_token_247", 128010: "python_tag"}),
        ("3.1-meta", {128005: "step_id", 128011: "image", 128012: "reserved_special_token_2"}),
        ("3.1-meta", {128004: "finetune_right_pad_id", 128255: "reserved_special_token_245"}),
        ("3", {128002: "reserved_special_token_0", 128004: "reserved_special_token_2", 128009: "eot_id"}),
        ("3", {128008: "reserved_special_token_4", 128010: "reserved_special_token_5"}),
        ("3", {128011: "reserved_special_token_6", 128255: "reserved_special_token_250"}),
    ],
)
def test_names_stand_at_the_ids_of_the_released_models(names: str, expected: dict[int, str]) -> None:
    found = by_id(names)
    assert {id: found[id] for id in expected} == {id: f"<|{name}|>" for id, name in expected.items()}


@pytest.mark.parametrize("names", ["3", "3.1", "3.1-meta"])
def test_there_are_256_without_gaps_or_repeats(names: str) -> None:
    assert list(special_tokens(BASE, names=names).values()) == list(range(BASE, BASE + special_count()))
    assert special_count() == 256


def test_roles_are_the_indices_of_llama_3_1() -> None:
    names = by_id()
    index = roles()
    assert names[BASE + index.bos] == "<|begin_of_text|>"
    assert names[BASE + index.eos] == "<|end_of_text|>"
    assert names[BASE + index.pad] == "<|finetune_right_pad_id|>"
    assert names[BASE + index.start_header] == "<|start_header_id|>"
    assert names[BASE + index.end_header] == "<|end_header_id|>"
    assert names[BASE + index.eom] == "<|eom_id|>"
    assert names[BASE + index.eot] == "<|eot_id|>"
    assert names[BASE + index.python_tag] == "<|python_tag|>"


def test_the_count_takes_in_the_named_ones_as_metas_does() -> None:
    assert len(by_id(count=16)) == 16
    assert by_id(count=16)[BASE + 15] == "<|reserved_special_token_7|>"
    assert len(by_id(count=least_count())) == 11


@pytest.mark.parametrize(("names", "count"), [("3.1", 10), ("3.1", 0), ("3.2", 256), ("", None)])
def test_what_cannot_be_is_refused(names: str, count: int | None) -> None:
    with pytest.raises(ConfigError):
        special_tokens(BASE, count, names)
