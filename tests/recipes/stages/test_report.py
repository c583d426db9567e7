"""The report: its figures are the run's, and what documents say cannot become markup."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from puna.base.progress import MetricsLog, Silent
from puna.recipes.runner import StageContext
from puna.recipes.stages.report import Facts, ReportConfig, _gather, render


@pytest.fixture(scope="module")
def facts(finished_run: Path) -> Facts:
    inputs = {"evaluate": finished_run / "evaluate"}
    log = MetricsLog(finished_run / "metrics.jsonl")
    return _gather(StageContext(finished_run / "report", inputs, Silent(), log, finished_run))


def text_of(html: str) -> str:
    class Text(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.parts: list[str] = []

        def handle_data(self, data: str) -> None:
            self.parts.append(data)

    parser = Text()
    parser.feed(html)
    return " ".join(parser.parts)


def test_the_figures_are_the_runs(finished_run: Path, facts: Facts) -> None:
    text = text_of((finished_run / "report.html").read_text())
    scores = json.loads((finished_run / "evaluate" / "scores.json").read_text())
    assert f"{scores['stages']['pretrain']['bits_per_byte']['value']:.3f}" in text
    assert f"{scores['xz']['given']:.3f}" in text
    assert f"{scores['stages']['sft']['exact_match']['value']:.1%}" in text
    for stage in facts.lineage:
        assert stage["content"][:12] in text or stage["name"] == "report"


def test_it_needs_no_network(finished_run: Path) -> None:
    page = (finished_run / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    for outside in ("http://", "https://", "src=", "@import", "url("):
        assert outside not in page


def _with(facts: Facts, **scores: float) -> Facts:
    changed = json.loads(json.dumps(facts.scores))
    changed["stages"]["pretrain"]["bits_per_byte"]["value"] = scores.get("bits", 1.0)
    changed["xz"]["given"] = scores.get("xz", 2.0)
    for stage in ("pretrain", "sft"):
        for key in ("exact_match", "token_f1"):
            changed["stages"][stage][key]["value"] = scores.get(stage, 0.5)
    return replace(facts, scores=changed)


def test_it_says_whether_scores_rise_and_xz_is_beaten(facts: Facts) -> None:
    good = text_of(render(_with(facts, bits=1.0, xz=2.0, pretrain=0.1, sft=0.2), ReportConfig()))
    assert "50.0% fewer bits than xz" in good
    assert "Scores rise from stage to stage." in good
    bad = text_of(render(_with(facts, bits=3.0, xz=2.0, pretrain=0.2, sft=0.2), ReportConfig()))
    assert "50.0% more bits than xz" in bad
    assert "Scores do not rise" in bad


def test_hostile_documents_stay_text(facts: Facts) -> None:
    hostile = '<script>alert("x")</script>'
    answers = {"sft": [{"prompt": hostile, "answer": hostile, "reference": hostile, "exact": 0.0, "f1": 0.0}]}
    metrics = json.loads(json.dumps(facts.metrics))
    metrics["split"]["held_out_sources"] = [hostile]
    page = render(replace(facts, name=hostile, answers=answers, metrics=metrics, settings=hostile), ReportConfig())
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_run_that_held_nothing_out_says_so(facts: Facts) -> None:
    empty = replace(facts, scores={"stages": {"pretrain": {}, "sft": {}}}, answers={})
    text = text_of(render(empty, ReportConfig()))
    assert "Nothing was held out" in text
    assert "gave no questions" in text


def test_quotations_stand_beside_the_models_answers(finished_run: Path, facts: Facts) -> None:
    cited = facts.scores["cited"]
    text = text_of((finished_run / "report.html").read_text())
    for name in ("given", "looked_up", "first_sentence"):
        assert f"{cited[name]['exact_match']['value']:.1%}" in text
    assert "first sentence that BM25 finds" in text
    scores = {key: value for key, value in facts.scores.items() if key not in ("cited", "retrieval")}
    without = text_of(render(replace(facts, scores=scores, answers={}), ReportConfig()))
    assert "BM25" not in without


def test_the_look_up_is_told_with_what_was_chosen(facts: Facts) -> None:
    text = text_of(render(facts, ReportConfig()))
    figures = facts.scores["retrieval"]
    for name in ("words", "vectors", "hybrid"):
        assert f"{figures[name]['ndcg']:.4f}" in text
    for weight, said in ((0.0, "looked up by words alone"), (0.5, "words and vectors, these with weight 0.5")):
        scores = {**facts.scores, "retrieval": {**figures, "weight": weight}}
        assert said in text_of(render(replace(facts, scores=scores), ReportConfig()))
    made = facts.metrics["encoder"]
    quoted = {"weight": 0.0, "questions": 7, "words": 0.875, "hybrid": 0.625}
    changed = {**facts.metrics, "encoder": {**made, "choice": {**made["choice"], "reader": quoted}}}
    said = text_of(render(replace(facts, metrics=changed), ReportConfig()))
    assert "its answers to 7 of those questions chose for it: 87.5% exact by words alone, 62.5% by both" in said
    without = {name: value for name, value in facts.scores.items() if name != "retrieval"}
    assert "Looking up" not in text_of(render(replace(facts, scores=without), ReportConfig()))
