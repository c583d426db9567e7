"""Documents to learn from and documents held out, with no near-duplicate across the line.

Whole groups of near-duplicates go to one side. A group's place in the queue is a hash of the seed and of its members'
texts, so that it depends neither on the order of the documents nor on what else is in the corpus; only where the queue
is cut depends on the total.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from puna.base.config import require
from puna.base.errors import InputError
from puna.base.files import hash_json
from puna.core.document import Document


@dataclass(frozen=True, slots=True)
class Split:
    """The two sides, each in the given order."""

    train: list[Document]
    held_out: list[Document]


def split(documents: Sequence[Document], groups: Sequence[Sequence[int]], fraction: float, seed: int) -> Split:
    """Holds out whole groups that together have close to `fraction` of the bytes, and never more.

    A group that would go beyond is trained on, and the queue goes on. Where every group is too big, the smallest is
    held out, so that something always is.

    Args:
        documents: the corpus.
        groups: indices into it, each document in one group (`dedup.near_duplicate_groups`).
        fraction: share of the bytes to hold out, from 0 (nothing is) to below 1.
        seed: another seed holds out other groups.

    Raises:
        ConfigError: the fraction is out of range.
        InputError: there is only one group, so that holding out would leave nothing to learn from.
    """
    require(0 <= fraction < 1, f"The share to hold out is {fraction}, and must be at least 0 and below 1.")
    if fraction == 0:
        return Split(list(documents), [])
    if len(groups) < 2:
        raise InputError(
            f"All {len(documents)} documents are one text or near-duplicates of one, so that none can be held out.",
            hint="Add documents, or hold out none: --set split.held_out=0.",
        )
    sizes = [sum(len(documents[i].text.encode()) for i in group) for group in groups]
    places = [hash_json([seed, sorted(documents[i].id for i in group)]) for group in groups]
    queue = sorted(range(len(groups)), key=lambda g: places[g])
    budget = fraction * sum(sizes)
    held: set[int] = set()
    for g in queue:
        if sizes[g] <= budget:
            budget -= sizes[g]
            held.update(groups[g])
    if not held:
        held.update(groups[min(queue, key=lambda g: sizes[g])])
    return Split(
        train=[document for i, document in enumerate(documents) if i not in held],
        held_out=[document for i, document in enumerate(documents) if i in held],
    )
