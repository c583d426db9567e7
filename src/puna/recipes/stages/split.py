"""Splitting: near-duplicate documents stay together, and a share of the text is held out from all training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from puna.base.config import require
from puna.data import corpus
from puna.data.dedup import near_duplicate_groups
from puna.data.split import split
from puna.recipes.runner import StageContext
from puna.recipes.stages.read import CORPUS

TRAIN = "train"
HELD_OUT = "held_out"


@dataclass(frozen=True, slots=True)
class SplitConfig:
    """What is held out.

    Attributes:
        held_out: share of the bytes; 0 holds out nothing, and then nothing is measured.
        near_duplicates: Jaccard similarity from which two documents stay on one side.
        containment: share of the smaller document that the larger holds too, from which they do.
        seed: of the choice.
    """

    held_out: float = 0.05
    near_duplicates: float = 0.2
    containment: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.held_out < 1, f"held_out is {self.held_out}; it must be at least 0 and below 1.")
        for name in ("near_duplicates", "containment"):
            value = getattr(self, name)
            require(0 < value <= 1, f"{name} is {value}; it must be above 0 and at most 1.")


def split_documents(context: StageContext, config: SplitConfig) -> Mapping[str, Any]:
    documents = corpus.read(context.inputs["read"] / CORPUS)
    groups = near_duplicate_groups(documents, config.near_duplicates, config.containment)
    parts = split(documents, groups, config.held_out, config.seed)
    corpus.write(context.folder / TRAIN, parts.train)
    corpus.write(context.folder / HELD_OUT, parts.held_out)
    return {
        "train_documents": len(parts.train),
        "train_bytes": sum(len(document.text.encode()) for document in parts.train),
        "held_out_documents": len(parts.held_out),
        "held_out_bytes": sum(len(document.text.encode()) for document in parts.held_out),
        "near_duplicate_groups": sum(len(group) > 1 for group in groups),
        "largest_group": max(map(len, groups), default=0),
        "held_out_sources": [document.source for document in parts.held_out],
    }
