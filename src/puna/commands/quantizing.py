"""`puna quantize`: a checkpoint in fewer bits, and a table of what it saves and what it loses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from puna.base.command_line import SETTINGS
from puna.base.errors import CheckpointError, InputError, StorageError
from puna.base.progress import Progress, for_terminal

if TYPE_CHECKING:
    from puna.core.verdict import Task
    from puna.model.checkpoint import Checkpoint
    from puna.quant.compare import QuantReport
    from puna.quant.job import Quantized
    from puna.tokenizer import Tokenizer

_CONVERSATIONS, _TASKS = "questions/conversations.jsonl", "questions/tasks.jsonl"
_TRAIN, _HELD_OUT = "split/train", "split/held_out"
_HELD_BACK = 10  # one text in so many is kept for the comparison where no other text is
_PIECE = 1024  # tokens of a piece
_ANSWER_TOKENS = 96


@dataclass(frozen=True, slots=True)
class Texts:
    """Token ids: what methods see, what the models are compared on, and questions with answers."""

    calibration: list[list[int]]
    held_out: list[list[int]]
    tasks: Sequence[Task] = ()


@click.command("quantize", context_settings=SETTINGS)
@click.argument("path", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--recipe", default=None, help="llama3.1-fp8, fp8, fp8-tensor, fp8-block, int8, int8-wo, int4-g32, ...")
@click.option(
    "--method", default="rtn", show_default=True, help="rtn, gptq, awq, smoothquant:0.8+gptq, rotate+gptq ..."
)
@click.option("--head", default="bf16", show_default=True, help="Format of the output matrix: bf16, int8, fp8.")
@click.option(
    "--format", "rows", multiple=True, metavar="GLOB=FORMAT", help="A format for some layers: layers.0.*=int8."
)
@click.option("--budget-bytes", default=0, help="Mixed precision: the best plan of at most so many bytes.")
@click.option("--max-kl", default=0.0, help="Mixed precision: the smallest plan so near the original, in nats a token.")
@click.option(
    "--calibration", type=click.Path(path_type=Path), help="Conversations (JSONL), documents, or a run folder."
)
@click.option("--calibration-tokens", default=65_536, show_default=True, help="Tokens that methods see, at most.")
@click.option("--tasks", default=50, show_default=True, help="Held-out questions of a run that both models answer.")
@click.option("--dtype", default="auto", show_default=True, help="Of the computation: auto, float32 or bfloat16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--speed/--no-speed", default=True, help="Whether to measure how fast both models write.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(path: Path, out: Path, quiet: bool, as_json: bool, **options: Any) -> None:
    """Quantise the model in CHECKPOINT (a folder or a run) into OUT, which vLLM and transformers read.

    The texts to calibrate with are the run's own conversations, those of --calibration, or Python's standard library.
    A table of bytes, quality and speed is printed; OUT/card.json and OUT.html keep it.
    """
    report = quantize_folder(path, out, options, for_terminal(quiet))
    click.echo(json.dumps(report.to_json()) if as_json else f"{report.table()}\nsaved to {out}")


def quantize_folder(path: Path, out: Path, options: dict[str, Any], progress: Progress) -> QuantReport:
    """Does what the command says; returns the table."""
    from puna.export import compressed_tensors
    from puna.export.folder import card_of
    from puna.model import hf
    from puna.model.checkpoint import CONFIG, Checkpoint
    from puna.quant.job import compute_dtype, quantize
    from puna.recipes.run_folder import checkpoint_folder, is_run

    if not hf.replaceable(out, (CONFIG,)):
        raise StorageError(f"{out} is not empty and holds no checkpoint.", hint="Choose another folder.")
    config = _config(options)
    checkpoint = Checkpoint.load(checkpoint_folder(path))
    if checkpoint.tokenizer is None:
        raise CheckpointError(f"{path} has no tokenizer to read texts with.", hint="Put its tokenizer.json beside it.")
    dtype, device = compute_dtype(checkpoint.config, options["dtype"]), options["device"]
    source = options["calibration"] or (path if is_run(path) else None)
    texts = read_texts(source, checkpoint.tokenizer, options["tasks"], progress)
    made = quantize(lambda: _open(checkpoint, dtype, device), texts.calibration, texts.held_out, config, progress)
    report = _with_behaviour(made, checkpoint.tokenizer, texts.tasks, options["speed"], progress)
    card = replace(card_of(made.plan, checkpoint), metrics=report.to_json())
    compressed_tensors.save(out, made.model, made.plan, checkpoint, card=card)
    write_page(Path(f"{out}.html"), report)
    return report


def _config(options: dict[str, Any]) -> Any:
    from puna.quant.job import QuantConfig
    from puna.quant.plan import AUTO

    budgets = {name: options[name] for name in ("budget_bytes", "max_kl")}
    recipe = options["recipe"] or (AUTO if any(budgets.values()) else "fp8")
    same = {name: options[name] for name in ("method", "head", "rows", "calibration_tokens")}
    return QuantConfig(recipe, **same, **budgets)


def _open(checkpoint: Checkpoint, dtype: str, device: str) -> Any:
    from puna.base.device import resolve_device

    return checkpoint.model(dtype, resolve_device(device)).requires_grad_(False)


# Texts ----------------------------------------------------------------------------------------------------------------


def read_texts(path: Path | None, tokenizer: Tokenizer, tasks: int, progress: Progress) -> Texts:
    """The texts of a run folder, of a file or a folder of documents, or of the standard library for None."""
    from puna.base.files import read_jsonl
    from puna.core.verdict import Task
    from puna.data import corpus
    from puna.recipes.run_folder import is_run

    if path is None or not is_run(path):
        return _split(_sequences(path, tokenizer, progress))
    encode = tokenizer.encode
    documents = [corpus.read(path / part) if (path / part).exists() else [] for part in (_TRAIN, _HELD_OUT)]
    train, held_out = ([encode(document.text, bos=True) for document in part] for part in documents)
    calibration = _conversations(path / _CONVERSATIONS, tokenizer) if (path / _CONVERSATIONS).exists() else train
    asked = [Task(**row) for row in read_jsonl(path / _TASKS)][:tasks] if (path / _TASKS).exists() else []
    if not held_out:
        return replace(_split(calibration), tasks=asked)
    return Texts(calibration, held_out, asked)


def _sequences(path: Path | None, tokenizer: Tokenizer, progress: Progress) -> list[list[int]]:
    from puna.data.corpus import read_folder, standard_library

    if path is not None and path.suffix == ".jsonl":
        return _conversations(path, tokenizer)
    root, config = standard_library() if path is None else (path, None)
    documents, _ = read_folder(root, config, progress=progress)
    return tokenizer.encode_batch([document.text for document in documents], bos=True)


def _conversations(path: Path, tokenizer: Tokenizer) -> list[list[int]]:
    from puna.data.conversations import read_conversations

    return [tokenizer.chat.render_for_training(conversation)[0] for conversation in read_conversations(path)]


def _split(sequences: list[list[int]]) -> Texts:
    """One text in ten, or one piece of a long text, is kept for the comparison."""
    pieces = [text[start : start + _PIECE] for text in sequences for start in range(0, len(text), _PIECE)]
    if len(pieces) < 2:
        raise InputError(
            f"All texts together have {sum(map(len, pieces))} tokens; some are needed to calibrate with, and others to "
            "compare on.",
            hint="Give more conversations or documents.",
        )
    return Texts([piece for i, piece in enumerate(pieces) if i % _HELD_BACK], pieces[::_HELD_BACK])


# Behaviour ------------------------------------------------------------------------------------------------------------


def _with_behaviour(
    made: Quantized, tokenizer: Tokenizer, tasks: Sequence[Task], speed: bool, progress: Progress
) -> QuantReport:
    """The report with the answers of both models, and how fast they write."""
    from puna.core.chat import Message
    from puna.core.completion import SamplingParams
    from puna.engine.local import LocalModel
    from puna.evals.answers import ask

    report = made.report
    models = [LocalModel(model, tokenizer) for model in (made.original, made.model)]
    longest = made.original.config.max_position_embeddings - _ANSWER_TOKENS
    tasks = [task for task in tasks if len(tokenizer.chat.render([Message("user", task.prompt)])) <= longest]
    if tasks:
        progress.say(f"asking both models {len(tasks)} questions")
        params = SamplingParams(temperature=0, max_tokens=_ANSWER_TOKENS)
        old, new = (ask(model, tasks, params) for model in models)
        scores = {"exact match": (old.exact.value, new.exact.value), "token F1": (old.f1.value, new.f1.value)}
        report = replace(report, scores=scores)
    if speed:
        old, new = (_speeds(model) for model in models)
        report = replace(report, speeds={name: (old[name], new[name]) for name in old if name in new})
    return report


def _speeds(model: Any) -> dict[str, float]:
    """Tokens a second of a prompt and of an answer, the better of two tries."""
    from puna.core.completion import SamplingParams

    size = min(256, model.config.max_position_embeddings // 2)
    found: dict[str, float] = {}
    for attempt in range(2):
        prompt = [(7 * i + attempt) % model.tokenizer.base_size for i in range(size)]
        usage = model.generate(prompt, SamplingParams(temperature=0, max_tokens=size // 4)).usage
        rates = {"prefill": size / usage.prefill_seconds}
        if usage.completion_tokens > 1:
            rates["decode"] = (usage.completion_tokens - 1) / usage.decode_seconds
        found |= {name: max(rate, found.get(name, 0.0)) for name, rate in rates.items()}
    return found


def write_page(path: Path, report: QuantReport) -> None:
    """The table and a plot of each layer's error as one HTML file."""
    from puna.base.files import write_text
    from puna.view import page
    from puna.view.plot import Series, line_chart

    made = page.Page(f"Quantised: {report.recipe}", f"{report.method}, {report.tokens:,} tokens compared")
    made.add("What it saves and loses", page.table(("", "original", "quantised", "change"), report.rows()))
    points = [(float(i), layer.error) for i, layer in enumerate(report.layers)]
    chart = line_chart([Series("relative error", points)], "layer", "error of the output")
    made.add("Layers", page.figure("How far each layer's output is from the original's", chart))
    made.add("Formats", page.table(("format", "modules"), report.formats.items()))
    write_text(path, made.render())
