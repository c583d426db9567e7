"""The index of the documents' passages, with which the raised model finds what it is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from puna.data import corpus
from puna.knowledge.index import PassageIndex
from puna.recipes.runner import StageContext
from puna.recipes.stages.read import CORPUS


def build_index(context: StageContext, max_chars: int) -> Mapping[str, Any]:
    """Indexes all documents, held-out ones too: they are the owner's, and looking up is not training."""
    index = PassageIndex.build(context.folder / "passages", corpus.read(context.inputs["read"] / CORPUS), max_chars)
    return {"passages": len(index)}
