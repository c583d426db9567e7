"""`puna raise`: the whole way from documents to a model, in one run folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from puna.base.command_line import SETTINGS
from puna.base.config import from_dict, override, read_toml, to_toml
from puna.base.progress import for_terminal, format_seconds


@click.command("raise", context_settings=SETTINGS)
@click.argument("documents", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The run folder (default: runs/NAME).")
@click.option("--base", default="scratch", show_default=True, help="'scratch', or a checkpoint folder to start from.")
@click.option(
    "--size", default="cria-3m", show_default=True, help="Size of a model from scratch; `puna plan` lists them."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a setting: pretrain.tokens=2e6.")
@click.option("--config", type=click.Path(path_type=Path), help="Take all settings from a run.toml instead.")
@click.option("--device", default=None, help="auto (default), cpu, cuda, ...")
@click.option("--until", metavar="STAGE", help="Stop after this stage.")
@click.option("--force", multiple=True, metavar="STAGE", help="Run this stage again although nothing has changed.")
@click.option("--dry-run", is_flag=True, help="Print the settings and what each stage would do, and stop.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@click.pass_context
def command(context: click.Context, **options: object) -> None:
    """Raise a model on DOCUMENTS: a folder, or one file; by default the standard library of this Python.

    Read, split, train a tokenizer, pre-train, fine-tune on questions made from the documents, evaluate, report.
    Stages whose inputs and settings are unchanged are skipped, and one that was cut off goes on where it was.
    """
    from puna.recipes.raising import raise_model, stages
    from puna.recipes.runner import Runner

    config, folder = _config(context)
    progress = for_terminal(quiet=bool(options["quiet"]))
    if options["dry_run"]:
        click.echo(to_toml(config))
        for name, plan in Runner(folder, stages(config), progress, context.params["force"]).plan():
            click.echo(f"# {name}: {plan}")
        return
    records = raise_model(config, folder, progress, until=context.params["until"], force=context.params["force"])
    if options["as_json"]:
        click.echo(json.dumps({name: record.metrics for name, record in records.items()}))
        return
    scores = records["evaluate"].metrics if "evaluate" in records else {}
    _tell(folder, scores, sum(record.seconds for record in records.values() if not record.skipped))


def _config(context: click.Context) -> tuple:
    """The resolved settings and the run folder."""
    from puna.recipes.raising import SCRATCH, RaiseConfig, from_base, scratch

    documents, base, size = (context.params[name] for name in ("documents", "base", "size"))
    source = str(documents.expanduser().resolve()) if documents else ""
    if context.params["config"]:
        config = from_dict(RaiseConfig, read_toml(context.params["config"]))
    else:
        config = scratch(size, source) if base == SCRATCH else from_base(str(Path(base).expanduser().resolve()), source)
    settings = list(context.params["settings"])
    if context.params["device"]:
        settings.append(f"device={context.params['device']}")
    name = documents.expanduser().resolve().stem if documents else "stdlib"
    return override(config, settings), context.params["out"] or Path("runs") / name


def _tell(folder: Path, scores: dict, seconds: float) -> None:
    """What came of it, and what to do next."""
    if "pretrain_bits_per_byte" in scores:
        click.echo(
            f"\nHeld-out text: {scores['pretrain_bits_per_byte']:.3f} bits a byte "
            f"(xz -9e given the training text: {scores['xz_given']:.3f}; alone: {scores['xz_alone']:.3f})"
        )
    if "sft_exact_match" in scores:
        click.echo(
            f"Held-out questions: {scores['sft_exact_match']:.1%} of answers exact, token F1 "
            f"{scores['sft_token_f1']:.3f} (before fine-tuning: {scores['pretrain_exact_match']:.1%}, "
            f"{scores['pretrain_token_f1']:.3f})"
        )
    if "cited_given_exact_match" in scores:
        click.echo(
            f"Quoted by the reader: {scores['cited_given_exact_match']:.1%} of answers exact, token F1 "
            f"{scores['cited_given_token_f1']:.3f}; from all documents {scores['cited_looked_up_exact_match']:.1%}, "
            f"{scores['cited_looked_up_token_f1']:.3f} (BM25's first sentence: "
            f"{scores['cited_first_sentence_exact_match']:.1%}, {scores['cited_first_sentence_token_f1']:.3f})"
        )
    click.echo(f"Time: {format_seconds(seconds)}")
    if (folder / "report.html").exists():
        click.echo(f"Report: {folder / 'report.html'}")
    click.echo(f"Talk to it: puna chat {folder}, or in a browser: puna serve {folder}")
