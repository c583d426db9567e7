from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from puna.core.tokens import Batch


def make_batch() -> Batch[np.ndarray]:
    return Batch(*(np.full((2, 3), i) for i in range(5)))


def test_map_reaches_every_array_and_leaves_the_batch_alone() -> None:
    batch = make_batch()
    doubled = batch.map(lambda array: array * 2)
    for number, field in enumerate(fields(Batch)):
        assert (getattr(doubled, field.name) == 2 * number).all()
        assert (getattr(batch, field.name) == number).all()


def test_a_batch_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make_batch().ids = np.zeros(1)  # type: ignore[misc]


def test_the_nouns_need_neither_torch_nor_numpy() -> None:
    code = """
import pkgutil, sys
import puna.core
for module in pkgutil.iter_modules(puna.core.__path__):
    __import__(f"puna.core.{module.name}")
heavy = {"torch", "numpy", "transformers", "tokenizers"} & set(sys.modules)
sys.exit(", ".join(sorted(heavy)) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
