"""`puna plan`."""

from __future__ import annotations

import json
from pathlib import Path


def test_a_named_size_and_a_checkpoint(puna, checkpoint: Path) -> None:
    code, out, _ = puna("plan", "llama-3.1-8b", "--json")
    assert code == 0
    plan = json.loads(out)["llama-3.1-8b"]
    assert plan["parameters"] == 8_030_261_248
    assert plan["kv_cache"] == 16 * 2**30
    code, out, _ = puna("plan", checkpoint, "--context", "100", "--json")
    assert code == 0
    assert json.loads(out)[str(checkpoint)]["context"] == 100


def test_all_sizes_in_one_table(puna) -> None:
    code, out, _ = puna("plan")
    assert code == 0
    assert "405,853,388,800" in out


def test_an_unknown_size_suggests_the_near_one(puna) -> None:
    code, _, err = puna("plan", "llama-3.1-8")
    assert code == 2
    assert "llama-3.1-8b" in err
