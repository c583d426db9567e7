"""Real sizes pass; sizes that no file has are refused before anything is made of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from puna.base.errors import CheckpointError
from puna.export.plausible import check_plausible
from puna.model.config import named_size, size_names


@pytest.mark.parametrize("name", size_names())
def test_every_real_size_passes(name: str) -> None:
    check_plausible(named_size(name), 146)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1 << 40}, "1099511627776 layers and holds 146 tensors"),
        ({"head_dim": 1 << 20}, "heads of 1048576 channels; the bound is 65,536"),
        ({"vocab_size": 1 << 63}, "vocab_size of 9223372036854775808"),
        ({"intermediate_size": 1 << 40}, "intermediate_size"),
        (
            {"num_attention_heads": 1 << 30, "num_key_value_heads": 1, "head_dim": 128},
            r"num_attention_heads \* head_dim",
        ),
        ({"hidden_size": 1 << 70, "head_dim": 128}, "hidden_size"),
    ],
)
def test_a_size_that_no_file_has_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_plausible(replace(named_size("llama-3.2-1b"), **changes), 146)
