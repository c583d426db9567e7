"""The report: one HTML file that shows a run, from its documents to its answers. Every figure comes from the run."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puna.base.card import Card
from puna.base.device import describe_machine
from puna.base.files import format_bytes, read_json, read_jsonl, write_text
from puna.base.progress import format_seconds
from puna.recipes.run_folder import REPORT
from puna.recipes.runner import StageContext, read_lineage
from puna.recipes.stages.evaluate import SCORES
from puna.view import page
from puna.view.page import Page
from puna.view.plot import Series, bar_chart, graph, line_chart

_STAGE_NAMES = {"pretrain": "after pre-training", "sft": "after fine-tuning"}


@dataclass(frozen=True, slots=True)
class ReportConfig:
    """What the report shows.

    Attributes:
        answers: questions that are shown with their answers.
    """

    answers: int = 12


@dataclass(frozen=True, slots=True)
class Facts:
    """What the report is made of.

    Attributes:
        name: of the run.
        lineage: of all stages before this one.
        metrics: stage -> its card's metrics.
        scores: of the evaluation.
        rows: of metrics.jsonl.
        answers: stage -> answered questions.
        settings: run.toml.
    """

    name: str
    lineage: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Any]]
    scores: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: str


def report(context: StageContext, config: ReportConfig) -> Mapping[str, Any]:
    facts = _gather(context)
    write_text(context.folder / REPORT, render(facts, config))
    return {"size": (context.folder / REPORT).stat().st_size}


def render(facts: Facts, config: ReportConfig) -> str:
    """The page."""
    parameters = facts.metrics["pretrain"].get("parameters", 0)
    made = Page(
        f"Raised: {facts.name}", f"{parameters / 1e6:,.1f} million parameters. Every figure was measured in this run."
    )
    made.add("", _at_a_glance(facts))
    made.add("Compression", *_compression(facts))
    made.add("Questions", *_questions(facts, config))
    if looked_up := facts.scores.get("retrieval"):
        made.add("Looking up", *_retrieval(facts, looked_up))
    made.add("Learning", *_learning(facts))
    made.add("In fewer bits", *_quantized(facts))
    made.add("Samples", *_samples(facts))
    made.add("Documents", *_documents(facts))
    made.add("Lineage", _lineage(facts), _stage_table(facts))
    made.add("Settings", page.definitions(describe_machine()), page.details("run.toml", page.code(facts.settings)))
    return made.render()


def _gather(context: StageContext) -> Facts:
    run, evaluated = context.run_folder, context.inputs["evaluate"]
    stages = read_lineage(run)["stages"]
    settings = run / "run.toml"
    return Facts(
        run.resolve().name,
        stages,
        {stage["name"]: Card.read(run / stage["name"]).metrics for stage in stages},
        read_json(evaluated / SCORES),
        context.metrics.read(),
        {name: _answers(evaluated / f"answers-{name}.jsonl") for name in (*_STAGE_NAMES, "cited")},
        settings.read_text(encoding="utf-8") if settings.exists() else "",
    )


def _answers(path: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(path)) if path.exists() else []


def _stage_scores(facts: Facts, key: str) -> dict[str, float]:
    return {name: scores[key]["value"] for name, scores in facts.scores["stages"].items() if key in scores}


def _at_a_glance(facts: Facts) -> str:
    tiles = []
    bits, xz = _stage_scores(facts, "bits_per_byte"), facts.scores.get("xz")
    if bits and xz:
        tiles.append(
            ("Bits per byte, held-out", f"{bits['pretrain']:.3f}", f"xz -9e given the training text: {xz['given']:.3f}")
        )
    exact = _stage_scores(facts, "exact_match")
    if exact:
        before = f"after pre-training: {exact['pretrain']:.1%}"
        if quoted := facts.scores.get("cited"):
            tiles.append(
                (
                    "Quotations right",
                    f"{quoted['given']['exact_match']['value']:.1%}",
                    "held-out questions, by the reader",
                )
            )
        tiles.append(("Held-out answers right", f"{exact['sft']:.1%}", before))
    trained = facts.metrics["pretrain"]
    rate, where = f"{trained['tokens_per_second']:,.0f}", f"pre-training, {trained['device']}, {trained['dtype']}"
    tiles.append(("Tokens a second", rate, where))
    tiles.append(("Peak memory", format_bytes(trained["peak_memory"]), "of the process while training"))
    seconds = sum(stage["seconds"] for stage in facts.lineage)
    tiles.append(("Time", format_seconds(seconds), "all stages together"))
    return page.tiles(tiles)


def _compression(facts: Facts) -> list[str]:
    bits, xz = _stage_scores(facts, "bits_per_byte"), facts.scores.get("xz")
    if not bits or not xz:
        return [page.paragraph("Nothing was held out, so nothing could be measured.", "faint")]
    bars = [("xz -9e, the text alone", xz["alone"]), ("xz -9e, given the training text", xz["given"])]
    bars += [(f"this model, {_STAGE_NAMES[name]}", value) for name, value in bits.items()]
    ahead = 1 - bits["pretrain"] / xz["given"]
    verdict = (
        f"The model needs {ahead:.1%} fewer bits than xz that has seen the same training text."
        if ahead > 0
        else f"The model needs {-ahead:.1%} more bits than xz that has seen the same training text."
    )
    remarks = [page.paragraph(verdict, "good" if ahead > 0 else "bad")]
    if not xz["covered"]:
        remarks.append(page.paragraph(
            "The training text is larger than xz's dictionary of 64 MiB, so xz could not use all of it.", "faint"
        ))  # fmt: skip
    size = facts.scores["stages"]["pretrain"]["bits_per_byte"]["bytes"]
    caption = f"Bits for a byte of {format_bytes(size)} of held-out documents; fewer is better"
    return [*remarks, page.figure(caption, bar_chart(bars, "bits/byte", best=min(bars, key=lambda bar: bar[1])[0]))]


def _questions(facts: Facts, config: ReportConfig) -> list[str]:
    exact, f1 = _stage_scores(facts, "exact_match"), _stage_scores(facts, "token_f1")
    if not exact:
        return [page.paragraph("The held-out documents gave no questions.", "faint")]
    rows = []
    for name, scores in facts.scores["stages"].items():
        rows.append(_score_row(_STAGE_NAMES[name], scores))
    quoted, cited = facts.scores.get("cited", {}), facts.answers.get("cited", [])
    if quoted:
        rows.append(_score_row("quoted by the reader", quoted["given"]))
    rises = exact["sft"] > exact["pretrain"] and f1["sft"] > f1["pretrain"]
    verdict = "Scores rise from stage to stage." if rises else "Scores do not rise from stage to stage."
    kinds = facts.scores["stages"]["sft"]["by_kind"]
    by_kind = [(kind, score["count"], f"{score['value']:.1%}") for kind, score in kinds.items()]
    return [
        page.paragraph("Questions about held-out documents, each asked with the passage that may hold the answer."),
        page.table(("stage", "questions", "exact match", "95 % interval", "token F1"), rows),
        page.paragraph(verdict, "good" if rises else "bad"),
        *_quotations(quoted),
        page.details("By kind of question, after fine-tuning", page.table(("kind", "questions", "exact"), by_kind)),
        _answer_table("Answers, drawn at random", facts.answers.get("sft", []), config.answers),
        *([_answer_table("Quotations, drawn at random", cited, config.answers)] if cited else []),
    ]


def _score_row(name: str, scores: Mapping[str, Any]) -> tuple[Any, ...]:
    e, f = scores["exact_match"], scores["token_f1"]
    interval = f"{e['low']:.1%} to {e['high']:.1%}"
    return name, e["count"], f"{e['value']:.1%}", interval, f"{f['value']:.3f}"


def _quotations(quoted: Mapping[str, Any]) -> list[str]:
    """What the reader quotes when it has to find the passage itself, beside what a search alone gives."""
    if not quoted:
        return []
    told = (
        "The reader quotes: each of its answers is a span of the documents. Asked without a passage, of all documents:"
    )
    rows = [
        _score_row("the reader's quotation", quoted["looked_up"]),
        _score_row("first sentence that BM25 finds", quoted["first_sentence"]),
    ]
    by_kind = [(kind, one["count"], f"{one['value']:.1%}") for kind, one in quoted["given"]["by_kind"].items()]
    return [
        page.paragraph(told),
        page.table(("", "questions", "exact match", "95 % interval", "token F1"), rows),
        page.details("By kind of question, quoted", page.table(("kind", "questions", "exact"), by_kind)),
    ]


_RANKINGS = {"words": "words alone (BM25)", "vectors": "the encoder's vectors alone", "hybrid": "both, fused"}


def _retrieval(facts: Facts, looked_up: Mapping[str, Any]) -> list[str]:
    """How well the passage is found that answers a question, on held-out questions and on those that chose."""
    choice, quoted = facts.metrics["encoder"]["choice"]["lookup"], facts.metrics["encoder"]["choice"]["reader"]
    told = (
        f"Passages are looked up by {_used(looked_up['weight'])}. That was chosen on {choice['words']['questions']} "
        "questions about training documents that the encoder did not learn from; the held-out questions chose nothing."
    )
    if quoted["questions"]:
        told += (
            f" The reader orders what is looked up by itself, so its answers to {quoted['questions']} of those "
            f"questions chose for it: {quoted['words']:.1%} exact by words alone, {quoted['hybrid']:.1%} by both; it "
            f"uses {_used(quoted['weight'])}."
        )
    header = ("", "questions", "recall@10", "nDCG@10", "first")
    return [
        page.paragraph("The passage that answers a held-out question, looked up among all passages:"),
        page.table(header, _ranking_rows(looked_up)),
        page.paragraph(told),
        page.details("On the questions that chose", page.table(header, _ranking_rows(choice))),
    ]


def _used(weight: float) -> str:
    return f"words and vectors, these with weight {weight}" if weight else "words alone"


def _ranking_rows(figures: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (name, one["questions"], f"{one['recall']:.4f}", f"{one['ndcg']:.4f}", f"{one['first']:.4f}")
        for key, name in _RANKINGS.items()
        for one in (figures[key],)
    ]


def _answer_table(caption: str, answers: Sequence[Mapping[str, Any]], count: int) -> str:
    """A sample drawn by chance, not the best."""
    shown = random.Random(0).sample(list(answers), min(count, len(answers)))
    rows = [
        (row["prompt"].rsplit("\n\n", 1)[-1], row["answer"], row["reference"], "✓" if row["exact"] else "")
        for row in shown
    ]
    return page.details(caption, page.table(("question", "answer", "the text", ""), rows))


def _learning(facts: Facts) -> list[str]:
    figures = []
    for stage, caption in (("pretrain", "Pre-training"), ("encoder", "Encoder"), ("sft", "Fine-tuning")):
        rows = [row for row in facts.rows if row.get("stage") == stage]
        if not rows:
            continue
        series = [Series("training", [(row["tokens"], row["loss"]) for row in rows])]
        if held_out := [(row["tokens"], row["held_out_loss"]) for row in rows if "held_out_loss" in row]:
            series.append(Series("held-out", held_out, dashed=True))
        figures.append(page.figure(f"{caption}: loss", line_chart(series, "tokens", "nats a token")))
    speed = [
        Series(s, [(r["seconds"], r["tokens_per_second"]) for r in facts.rows if r.get("stage") == s])
        for s in _STAGE_NAMES
    ]
    figures.append(page.details("Throughput", page.figure("Throughput", line_chart(speed, "seconds", "tokens/s"))))
    return figures


def _quantized(facts: Facts) -> list[str]:
    made = facts.metrics["quantize"]
    points = [(float(layer), error) for layer, error in enumerate(made["layers"])]
    chart = line_chart([Series("relative error", points)], "layer", "error of its output")
    return [
        page.paragraph(f"The fine-tuned model in the recipe {made['recipe']}, compared on held-out documents."),
        page.table(("", "original", "quantised", "change"), made["table"]),
        page.details("Error of each layer", page.figure("How far each layer's output is from the original's", chart)),
    ]


def _samples(facts: Facts) -> list[str]:
    written = facts.scores["stages"].get("pretrain", {}).get("samples", [])
    if not written:
        return [page.paragraph("Nothing was held out to begin a sample with.", "faint")]
    intro = page.paragraph("The pre-trained model continues the first lines of held-out documents.")
    blocks = [
        page.paragraph(sample["source"], "faint") + page.code(sample["prompt"] + "⟶ " + sample["text"])
        for sample in written
    ]
    return [intro, *blocks]


def _documents(facts: Facts) -> list[str]:
    reading, parted = facts.metrics["read"], facts.metrics["split"]
    told = reading["report"]
    rows: list[tuple[Any, ...]] = [
        ("read", reading["documents"], f"{told['files']} files, {format_bytes(told['bytes'])}"),
        ("exact duplicates dropped", reading["duplicates"], ""),
        (
            "near-duplicate groups, kept on one side",
            parted["near_duplicate_groups"],
            f"largest: {parted['largest_group']}",
        ),
        ("training", parted["train_documents"], format_bytes(parted["train_bytes"])),
        ("held out", parted["held_out_documents"], format_bytes(parted["held_out_bytes"])),
    ]
    rows += [(f"skipped: {why}", s["count"], ", ".join(s["examples"])) for why, s in told["skipped"].items()]
    names = page.code("\n".join(parted["held_out_sources"]))
    return [page.table(("documents", "count", ""), rows), page.details("Held-out documents", names)]


def _lineage(facts: Facts) -> str:
    stages = {stage["name"]: stage for stage in facts.lineage}
    labels = {name: (name, stage["content"][:12], stage["kind"]) for name, stage in stages.items()}
    edges = [(name, stage["name"]) for stage in facts.lineage for name in stage["inputs"] if name in stages]
    return page.figure("What was made from what (the first 12 digits of each content hash)", graph(labels, edges))


def _stage_table(facts: Facts) -> str:
    rows = [(s["name"], s["kind"], s["content"][:12], format_seconds(s["seconds"])) for s in facts.lineage]
    return page.table(("stage", "makes", "content", "time"), rows)
