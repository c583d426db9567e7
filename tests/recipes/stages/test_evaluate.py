"""The evaluation stage: its figures agree with what they are computed from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import puna
from puna.base.files import read_jsonl
from puna.base.progress import MetricsLog, Silent
from puna.data import corpus
from puna.evals.bits import bits_per_byte
from puna.evals.compression import xz_bits
from puna.knowledge.grounding import NOT_IN_TEXT
from puna.reader.ranker import RankerConfig
from puna.recipes.runner import StageContext
from puna.recipes.stages.evaluate import EvaluateConfig, evaluate
from puna.recipes.stages.reader import ReaderConfig, make_reader


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


# Quotations -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quoted(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of a reader alone, beside the run's other stages."""
    folder = tmp_path_factory.mktemp("quoted")
    log = MetricsLog(folder / "metrics.jsonl")
    inputs = {name: finished_run / name for name in ("split", "questions", "index")}
    for name in ("reader", "evaluate"):
        (folder / name).mkdir()
    reading = ReaderConfig(RankerConfig(epochs=12, least=1))
    make_reader(StageContext(folder / "reader", inputs, Silent(), log, finished_run), reading, 200)
    inputs["reader"] = folder / "reader"
    context = StageContext(folder / "evaluate", inputs, Silent(), log, finished_run)
    metrics = evaluate(context, (), EvaluateConfig(tasks=1000), "cpu")
    assert metrics["cited_given_exact_match"] > metrics["cited_first_sentence_exact_match"]
    return folder / "evaluate"


def test_every_quotation_is_a_span_of_a_held_out_document(finished_run: Path, quoted: Path) -> None:
    texts = {document.id: document.text for document in corpus.read(finished_run / "split" / "held_out")}
    sources = {row["id"]: row["meta"]["document_id"] for row in read_jsonl(finished_run / "questions" / "tasks.jsonl")}
    rows = list(read_jsonl(quoted / "answers-cited.jsonl"))
    found = [row for row in rows if row["span"]]
    assert len(found) > 0.5 * len(rows) > 5
    for row in found:
        ((start, end),) = row["span"]
        assert " ".join(texts[sources[row["id"]]][start:end].split()) == " ".join(row["answer"].split())
    assert {row["answer"] for row in rows if not row["span"]} <= {NOT_IN_TEXT}


def test_quotations_are_scored_on_the_same_questions(quoted: Path) -> None:
    cited = json.loads((quoted / "scores.json").read_text())["cited"]
    rows = list(read_jsonl(quoted / "answers-cited.jsonl"))
    assert cited["given"]["exact_match"]["value"] == pytest.approx(sum(row["exact"] for row in rows) / len(rows))
    answerable = [row for row in rows if row["kind"] != "not_in_text"]
    for name in ("looked_up", "first_sentence"):
        assert cited[name]["exact_match"]["count"] == len(answerable)


def test_a_run_without_a_reader_is_scored_without_quotations(finished_run: Path, tmp_path: Path) -> None:
    inputs = {name: finished_run / name for name in ("split", "questions", "index")} | {"reader": tmp_path}
    context = StageContext(tmp_path, inputs, Silent(), MetricsLog(tmp_path / "metrics.jsonl"), finished_run)
    assert "cited_given_exact_match" not in evaluate(context, (), EvaluateConfig(), "cpu")
