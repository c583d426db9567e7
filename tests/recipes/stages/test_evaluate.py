"""The evaluation stage: its figures agree with what they are computed from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import puna
from puna.data import corpus
from puna.evals.bits import bits_per_byte
from puna.evals.compression import xz_bits


@pytest.fixture(scope="module")
def scores(finished_run: Path) -> dict:
    return json.loads((finished_run / "evaluate" / "scores.json").read_text())


def test_bits_per_byte_are_those_of_the_checkpoint(finished_run: Path, scores: dict) -> None:
    held_out = corpus.read(finished_run / "split" / "held_out")
    size = scores["stages"]["sft"]["bits_per_byte"]["bytes"]
    kept = []
    for document in held_out:
        if sum(len(d.text.encode()) for d in kept) == size:
            break
        kept.append(document)
    model = puna.load(finished_run, device="cpu")
    measured = bits_per_byte(model, lambda text: model.tokenizer.encode(text, bos=True), kept, 128)
    assert scores["stages"]["sft"]["bits_per_byte"]["value"] == pytest.approx(measured.value, rel=1e-5)
    train = corpus.read(finished_run / "split" / "train")
    assert scores["xz"]["given"] == pytest.approx(xz_bits(train, kept).given)


def test_scores_are_the_means_of_the_kept_answers(finished_run: Path, scores: dict) -> None:
    for stage in ("pretrain", "sft"):
        lines = (finished_run / "evaluate" / f"answers-{stage}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        measured = scores["stages"][stage]
        assert measured["exact_match"]["count"] == len(rows) > 0
        assert measured["exact_match"]["value"] == pytest.approx(sum(row["exact"] for row in rows) / len(rows))
        assert measured["token_f1"]["value"] == pytest.approx(sum(row["f1"] for row in rows) / len(rows), abs=1e-4)
        assert sum(kind["count"] for kind in measured["by_kind"].values()) == len(rows)


def test_the_card_summarises_both_stages(finished_run: Path, scores: dict) -> None:
    metrics = json.loads((finished_run / "evaluate" / "card.json").read_text())["metrics"]
    assert metrics["xz_given"] == scores["xz"]["given"]
    for stage in ("pretrain", "sft"):
        assert metrics[f"{stage}_bits_per_byte"] == scores["stages"][stage]["bits_per_byte"]["value"]
        assert metrics[f"{stage}_exact_match"] == scores["stages"][stage]["exact_match"]["value"]
