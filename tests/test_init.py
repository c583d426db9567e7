from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import puna
from puna.base.errors import ArtifactError, CheckpointError, ConfigError, InputError
from puna.base.files import write_json
from puna.core.completion import SamplingParams
from puna.recipes.run_folder import CHECKPOINT, LINEAGE
from puna.testing import tiny_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.mark.parametrize("name", puna.__all__)
def test_every_public_name_is_there(name: str):
    item = getattr(puna, name)
    assert item.__name__ == name
    assert item.__module__ == puna._HOMES.get(name, "puna") or item.__module__.startswith(puna._HOMES[name])
    assert item.__doc__


def test_dir_lists_the_public_names():
    assert dir(puna) == sorted(puna.__all__)
    assert {*puna._HOMES, "load"} == set(puna.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'puna' has no attribute 'lod'"):
        puna.lod


def test_importing_puna_imports_nothing_else():
    code = "import sys, puna; print([m for m in sys.modules if m.startswith('puna.') or m in ('torch', 'numpy')])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_checkpoint_folder_is_loaded(tmp_path: Path):
    folder = tiny_checkpoint(tmp_path / "model")
    model = puna.load(str(folder), device="cpu")
    assert isinstance(model, puna.LocalModel)
    assert str(puna.load(folder, "bfloat16", "cpu").model.norm.weight.dtype) == "torch.bfloat16"


def test_of_a_run_the_last_trained_model_is_loaded(tmp_path: Path):
    run = tmp_path / "run"
    write_json(run / LINEAGE, {"stages": []})
    with pytest.raises(ArtifactError, match="has no model yet"):
        puna.load(run)
    for seed, stage in enumerate(("pretrain", "sft")):
        expected = puna.load(tiny_checkpoint(run / stage / CHECKPOINT, seed=seed), device="cpu")
        assert puna.load(run, device="cpu").generate("x", GREEDY).ids == expected.generate("x", GREEDY).ids


def test_what_cannot_be_loaded_is_told(tmp_path: Path):
    with pytest.raises(InputError, match="no folder"):
        puna.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError):
        puna.load(tmp_path)
    with pytest.raises(ConfigError, match="int8"):
        puna.load(tiny_checkpoint(tmp_path / "model"), "int8")
