"""Groups of random answers for the tests of the room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from puna.align.groups import Group
from puna.data.shards import TokenShards, write_shards
from puna.testing import tiny_config

MakeGroups = Callable[..., tuple[TokenShards, list[Group]]]


@pytest.fixture
def make_groups(tmp_path: Path) -> MakeGroups:
    """Groups of segments: (prompt, answers...) in tokens; an answer's tokens are marked."""

    def make(shapes: Sequence[Sequence[int]], labels: Sequence[float] = (), name: str = "tokens") -> tuple:
        generator, segments, groups = np.random.default_rng(0), [], []
        size = tiny_config().vocab_size
        for i, (prompt, *answers) in enumerate(shapes):
            before = generator.integers(0, size, prompt)
            groups.append(
                Group(tuple(len(segments) + j for j in range(len(answers))), labels[i] if labels else float(i % 2))
            )
            for answer in answers:
                ids = np.concatenate([before, generator.integers(0, size, answer)])
                segments.append((ids, np.arange(len(ids)) >= prompt))
        return write_shards(tmp_path / name, segments, size), groups

    return make
