"""`puna eval`: bits per byte of documents under a model, its answers to questions about them, public question sets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from puna.base.command_line import SETTINGS
from puna.base.errors import ConfigError, InputError
from puna.base.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from puna.base.progress import Progress, for_terminal
from puna.core.completion import SamplingParams

if TYPE_CHECKING:
    from puna.engine.local import LocalModel
    from puna.evals.contamination import ContaminationReport
    from puna.evals.measures import Run
    from puna.evals.statistics import Comparison
    from puna.evals.suites import Suite

    Comparisons = Mapping[str, Mapping[str, Comparison]]

PAGE = "index.html"


@click.command("eval", context_settings=SETTINGS)
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("documents", type=click.Path(path_type=Path), required=False)
@click.option("--task", "files", multiple=True, help="A file of questions, FILE or FORMAT=FILE; may be given again.")
@click.option("--examples", type=click.Path(path_type=Path), help="A file of questions to take the examples from.")
@click.option("--shots", default=0, show_default=True, help="Examples before each question of --task.")
@click.option("--limit", type=int, help="Questions of each --task at most.")
@click.option("--seed", default=0, show_default=True, help="Of sampling, generated tasks and the bootstrap.")
@click.option("--temperature", default=0.0, show_default=True, help="Of answers to --task.")
@click.option("--plain", is_flag=True, help="Continue plain text in place of a chat, as for a base model.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the results of --task; resumed where cut off.")
@click.option("--against", type=click.Path(path_type=Path), help="Another folder of results to compare with.")
@click.option("--training", type=click.Path(path_type=Path), help="Documents to look for the questions of --task in.")
@click.option("--tasks", default=200, show_default=True, help="Questions about DOCUMENTS asked at most; 0 for none.")
@click.option("--max-tokens", default=96, show_default=True, help="Length of an answer about DOCUMENTS at most.")
@click.option(
    "--samples", type=click.Path(path_type=Path), help="Write questions about DOCUMENTS with answers (JSONL)."
)
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, documents: Path | None, files: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Measure the model in PATH (a run folder or a checkpoint).

    On DOCUMENTS that it has not seen: bits per byte, and answers to questions about them. With --task, on question sets
    in the public formats: MMLU, ARC, HellaSwag, GSM8K, MGSM, IFEval, HumanEval, MBPP, BFCL, or any multiple choice, in
    JSONL, JSON, CSV or Parquet, known by their columns or named (mmlu=FILE). Multiple choice is scored by
    log-likelihood; programs run in a sandbox. Long contexts are generated: needle=4096, keys=4096, values=4096,
    variables=4096 or words=4096, with a length in bytes. With --training, the questions that stand in those documents
    are named.
    """
    from puna.recipes.run_folder import load_model

    if documents is None and not files:
        raise ConfigError("There is nothing to measure on.", hint="Give a folder of documents, or --task FILE.")
    for option in ("against", "out", "training", "examples"):
        if options[option] and not files:
            raise ConfigError(f"--{option} is about questions of --task, and none is given.", hint="Add --task FILE.")
    suites = read_suites(files, options["examples"], options["seed"])
    progress = for_terminal(options["quiet"])
    model = load_model(path, options["dtype"], options["device"])
    result: dict[str, Any] = {}
    lines: list[str] = []
    if documents is not None:
        result |= on_documents(model, documents, options, progress)
        lines += document_lines(result)
    if suites:
        measured, comparisons = on_suites(model, str(path), suites, options, progress)
        result |= measured
        lines += suite_lines(measured["suites"])
        if options["training"]:
            found = in_training(suites, options["training"], options["limit"], progress)
            result["contamination"] = {name: report.to_json() for name, report in found.items()}
            lines += contamination_lines(result["contamination"])
        if comparisons:
            result["against"] = {name: {k: c.to_json() for k, c in some.items()} for name, some in comparisons.items()}
            lines += comparison_lines(comparisons)
    click.echo(json.dumps(result) if as_json else "\n".join(lines))


def on_documents(model: LocalModel, documents: Path, options: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Bits per byte beside xz, and answers to questions made of the documents."""
    from dataclasses import asdict

    from puna.data.conversations import QuestionConfig, build_tasks
    from puna.data.corpus import read_folder
    from puna.evals.answers import ask
    from puna.evals.bits import bits_per_byte
    from puna.evals.compression import xz_bits

    read, _ = read_folder(documents, progress=progress)
    tokenizer = model.tokenizer
    total = sum(map(len, tokenizer.encode_batch([document.text for document in read])))
    with progress.task("bits per byte", total, "tokens") as bar:
        context = model.config.max_position_embeddings
        bits = bits_per_byte(model, lambda text: tokenizer.encode(text, bos=True), read, context, bar.advance)
    result: dict[str, Any] = {"bits_per_byte": asdict(bits), "xz": xz_bits((), read).alone}
    if options["tasks"]:
        made = build_tasks(read, QuestionConfig(), seed=0)[: options["tasks"]]
        answers = ask(model, made, SamplingParams(temperature=0, max_tokens=options["max_tokens"]))
        result |= {"exact_match": asdict(answers.exact), "token_f1": asdict(answers.f1)}
        if options["samples"]:
            write_jsonl(options["samples"], (sample.to_json() for sample in answers.samples))
    return result


def document_lines(result: Mapping[str, Any]) -> list[str]:
    bits = result["bits_per_byte"]
    lines = [f"{bits['value']:.4f} bits a byte over {bits['bytes']:,} bytes (xz -9e alone: {result['xz']:.4f})"]
    if "exact_match" in result:
        exact, f1 = result["exact_match"], result["token_f1"]
        interval = f"95 % interval {exact['low']:.1%} to {exact['high']:.1%}"
        lines.append(f"{exact['value']:.1%} of {exact['count']} answers exact ({interval}), token F1 {f1['value']:.3f}")
    return lines


def read_suites(files: Sequence[str], examples: Path | None, seed: int) -> list[Suite]:
    """What --task names: FILE, FORMAT=FILE, or KIND=LENGTH for a generated task."""
    from puna.evals import long
    from puna.evals.formats import read_suite

    suites = []
    for text in files:
        format, equals, name = text.partition("=")
        if equals and format in long.KINDS:
            if not name.isdigit():
                raise ConfigError(f"--task {text!r} has no length in bytes.", hint=f"Write it as {format}=4096.")
            suites.append(long.generate(format, int(name), seed=seed))
        elif equals and not Path(text).exists():
            suites.append(read_suite(Path(name), format, examples))
        else:
            suites.append(read_suite(Path(text), examples=examples))
    return suites


def on_suites(
    model: LocalModel, name: str, suites: Sequence[Suite], options: Mapping[str, Any], progress: Progress
) -> tuple[dict[str, Any], Comparisons]:
    """The harness's results, kept with their page in --out, or in a temporary folder where none is given."""
    from tempfile import TemporaryDirectory

    from puna.evals.choices import TokenLikelihood
    from puna.evals.harness import HarnessConfig, Subject, compare_folders, evaluate, samples_path
    from puna.view.evaluation import evaluation_page

    encode, context = model.tokenizer.encode, model.config.max_position_embeddings
    likelihood = TokenLikelihood(model, lambda text: encode(text, bos=True), context)
    subject = Subject(name, model, likelihood, model.generate)
    config = HarnessConfig(
        options["shots"], options["limit"], options["seed"], options["temperature"], options["plain"]
    )
    against: Path | None = options["against"]
    if against and not (against / "results.json").exists():
        raise InputError(f"{against} has no results to compare with.", hint="Give the --out of another evaluation.")
    with TemporaryDirectory() as temporary:
        folder = options["out"] or Path(temporary)
        results = evaluate(subject, suites, config, folder, run_of(suites), progress)
        comparisons = compare_folders(against, folder, options["seed"]) if against else {}
        other = read_json(against / "results.json")["model"] if against else ""
        rows = {suite.name: list(read_jsonl(samples_path(folder, suite.name))) for suite in suites}
        write_text(folder / PAGE, evaluation_page(results, rows, other, comparisons))
        if against:
            told = {one: {score: c.to_json() for score, c in some.items()} for one, some in comparisons.items()}
            write_json(folder / "comparison.json", {"first": other, "second": name, "suites": told})
    return results, comparisons


def run_of(suites: Sequence[Suite]) -> Run | None:
    """What runs programs, where a suite asks for them: the strongest sandbox that holds here."""
    if not any(suite.measure == "code" for suite in suites):
        return None
    from puna.evals.programs import runner
    from puna.sandbox.probe import best

    return runner(best())


def suite_lines(suites: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, suite in suites.items():
        for score, one in suite["scores"].items():
            interval = f"95 % interval {one['low']:.1%} to {one['high']:.1%}"
            lines.append(f"{name}: {score} {one['value']:.1%} of {one['count']} ({interval})")
    return lines


def comparison_lines(comparisons: Comparisons) -> list[str]:
    lines = []
    for name, scores in comparisons.items():
        for score, c in scores.items():
            interval = f"95 % interval {c.low:+.1%} to {c.high:+.1%}"
            lines.append(
                f"{name}: {score} {c.first:.1%} to {c.second:.1%}: {c.difference:+.1%} ({interval}), won {c.won}, "
                f"lost {c.lost}, p = {c.p_value:.3g} ({c.test})"
            )
    return lines


def in_training(
    suites: Sequence[Suite], documents: Path, limit: int | None, progress: Progress
) -> dict[str, ContaminationReport]:
    """Which questions stand in the documents."""
    from puna.data.corpus import read_folder
    from puna.evals.contamination import contamination

    read, _ = read_folder(documents, progress=progress)
    return {suite.name: contamination(suite.tasks[:limit], read) for suite in suites}


def contamination_lines(reports: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, report in reports.items():
        share = f"{report['contaminated']} of {report['questions']} questions stand in the training documents"
        ids = ", ".join(row["id"] for row in report["found"][:10])
        more = ", ..." if report["contaminated"] > 10 else ""
        lines.append(f"{name}: {share}{f' ({ids}{more})' if ids else ''}")
    return lines
