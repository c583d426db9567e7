"""`puna eval`."""

from __future__ import annotations

import json
from pathlib import Path


def test_it_prints_figures_and_keeps_samples(puna, checkpoint: Path, documents: Path, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    options = ("--tasks", "3", "--max-tokens", "4", "-q")
    code, out, _ = puna("eval", checkpoint, documents, *options, "--json", "--samples", samples)
    assert code == 0
    result = json.loads(out)
    assert result["bits_per_byte"]["bytes"] == sum(path.stat().st_size for path in documents.iterdir())
    assert result["exact_match"]["count"] == len(samples.read_text().splitlines()) == 3
    code, out, _ = puna("eval", checkpoint, documents, *options)
    assert f"{result['bits_per_byte']['value']:.4f} bits a byte" in out


def test_no_questions_on_request(puna, checkpoint: Path, documents: Path) -> None:
    code, out, _ = puna("eval", checkpoint, documents, "--tasks", "0", "-q", "--json")
    assert code == 0
    assert "exact_match" not in json.loads(out)
