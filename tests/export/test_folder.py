"""Folders are whole or absent, and hold what readers look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from puna.base.card import CARD, Card
from puna.base.errors import StorageError
from puna.base.files import hash_folder
from puna.export.folder import Folder, card_of, write_folder
from puna.model import hf
from puna.model.checkpoint import Checkpoint
from puna.quant.plan import QuantPlan
from puna.testing import tiny_model, tiny_tokenizer

CONFIG = {"bos_token_id": 1, "eos_token_id": [2, 3]}
SPECS = {"norm.weight": hf.Spec((4,), torch.float32), "lm_head.weight": hf.Spec((3, 4), torch.float32)}
WEIGHTS = {"norm.weight": torch.ones(4), "lm_head.weight": torch.arange(12.0).view(3, 4)}


def folder(path: Path, checkpoint: Checkpoint | None = None, **more: int) -> Folder:
    return Folder(path, CONFIG, checkpoint, Card("checkpoint", config={"a": 1}), {"extra.json": {"b": 2}}, **more)


def test_everything_is_there(tmp_path: Path) -> None:
    checkpoint = Checkpoint.of(tiny_model(), tiny_tokenizer(), generation={"temperature": 0.6, "eos_token_id": 9})
    write_folder(folder(tmp_path / "a", checkpoint), SPECS, WEIGHTS.__getitem__)
    read = {path.name: path for path in (tmp_path / "a").iterdir()}
    assert {"config.json", "generation_config.json", "extra.json", "model.safetensors", CARD} < read.keys()
    assert {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "chat_template.jinja"} < read.keys()
    generation = json.loads(read["generation_config.json"].read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 9, "temperature": 0.6}
    assert json.loads(read["extra.json"].read_text()) == {"b": 2}
    card = Card.read(tmp_path / "a")
    assert card.content == hash_folder(tmp_path / "a", leave_out=[CARD])
    assert torch.equal(hf.read_weights(tmp_path / "a")["lm_head.weight"], WEIGHTS["lm_head.weight"])


def test_weights_are_spread_over_several_files(tmp_path: Path) -> None:
    write_folder(folder(tmp_path / "a", max_shard_bytes=20), SPECS, WEIGHTS.__getitem__)
    assert (tmp_path / "a" / hf.INDEX).exists()
    assert set(hf.read_weights(tmp_path / "a")) == set(SPECS)


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    write_folder(folder(tmp_path / "a"), SPECS, WEIGHTS.__getitem__)
    before = hash_folder(tmp_path / "a")
    with pytest.raises(KeyError):
        write_folder(folder(tmp_path / "a"), SPECS, {"norm.weight": WEIGHTS["norm.weight"]}.__getitem__)
    assert hash_folder(tmp_path / "a") == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_other_things_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="holds no checkpoint"):
        write_folder(folder(tmp_path), SPECS, WEIGHTS.__getitem__)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_card_names_where_the_model_comes_from() -> None:
    plan = QuantPlan({"layers.0.mlp.up_proj": "fp8"}, "some recipe")
    source = Checkpoint.of(tiny_model(), card=Card("checkpoint", content="abc"))
    card = card_of(plan, source)
    assert card.inputs == {"checkpoint": "abc"}
    assert QuantPlan.from_json(card.config["plan"]) == plan
    assert card_of(plan, None).inputs == {}
