"""`puna eval`: bits per byte of documents under a model, and its answers to questions about them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from puna.base.files import write_jsonl
from puna.base.progress import for_terminal
from puna.core.completion import SamplingParams


@click.command("eval")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("documents", type=click.Path(path_type=Path))
@click.option("--tasks", default=200, show_default=True, help="Questions asked at most; 0 for none.")
@click.option("--max-tokens", default=96, show_default=True, help="Length of an answer at most.")
@click.option("--samples", type=click.Path(path_type=Path), help="Write every question with its answer here (JSONL).")
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    path: Path,
    documents: Path,
    tasks: int,
    max_tokens: int,
    samples: Path | None,
    dtype: str,
    device: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure the model in PATH (a run folder or a checkpoint) on DOCUMENTS that it has not seen."""
    from dataclasses import asdict

    from puna.data.conversations import QuestionConfig, build_tasks
    from puna.data.corpus import read_folder
    from puna.evals.answers import ask
    from puna.evals.bits import bits_per_byte
    from puna.evals.compression import xz_bits
    from puna.recipes.run_folder import load_model

    progress = for_terminal(quiet)
    read, _ = read_folder(documents, progress=progress)
    model = load_model(path, dtype, device)
    tokenizer = model.tokenizer
    total = sum(map(len, tokenizer.encode_batch([document.text for document in read])))
    with progress.task("bits per byte", total, "tokens") as bar:
        context = model.config.max_position_embeddings
        bits = bits_per_byte(model, lambda text: tokenizer.encode(text, bos=True), read, context, bar.advance)
    result: dict = {"bits_per_byte": asdict(bits), "xz": xz_bits((), read).alone}
    if tasks:
        made = build_tasks(read, QuestionConfig(), seed=0)[:tasks]
        answers = ask(model, made, SamplingParams(temperature=0, max_tokens=max_tokens))
        result |= {"exact_match": asdict(answers.exact), "token_f1": asdict(answers.f1)}
        if samples:
            write_jsonl(samples, (sample.to_json() for sample in answers.samples))
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{bits.value:.4f} bits a byte over {bits.bytes:,} bytes (xz -9e alone: {result['xz']:.4f})")
    if "exact_match" in result:
        exact, f1 = result["exact_match"], result["token_f1"]
        interval = f"95 % interval {exact['low']:.1%} to {exact['high']:.1%}"
        click.echo(f"{exact['value']:.1%} of {exact['count']} answers exact ({interval}), token F1 {f1['value']:.3f}")
