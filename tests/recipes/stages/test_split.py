"""The splitting stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from puna.base.errors import ConfigError
from puna.data import corpus
from puna.recipes.stages.split import SplitConfig


def test_both_sides_together_are_the_corpus(finished_run: Path) -> None:
    train, held_out = (corpus.read(finished_run / "split" / side) for side in ("train", "held_out"))
    whole = corpus.read(finished_run / "read" / "corpus")
    assert sorted(document.id for document in (*train, *held_out)) == sorted(document.id for document in whole)
    metrics = json.loads((finished_run / "split" / "card.json").read_text())["metrics"]
    assert metrics["held_out_documents"] == len(held_out) > 0
    assert metrics["held_out_bytes"] == sum(len(document.text.encode()) for document in held_out)
    assert metrics["held_out_sources"] == [document.source for document in held_out]


@pytest.mark.parametrize(
    "settings", [{"held_out": 1.0}, {"held_out": -0.1}, {"near_duplicates": 0.0}, {"containment": 2.0}]
)
def test_settings_out_of_range_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        SplitConfig(**settings)
