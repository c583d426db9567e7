"""`puna train`: single stages of training, on the user's own documents or conversations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from puna.base.command_line import SETTINGS
from puna.base.config import override
from puna.base.progress import for_terminal

_SETTINGS = click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting: optimizer.lr=1e-4.")
_DEVICE = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
_QUIET = click.option("--quiet", "-q", is_flag=True, help="No progress.")


@click.group("train", context_settings=SETTINGS)
def command() -> None:
    """Train a checkpoint on documents or on conversations."""


@command.command("pretrain")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("documents", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@_SETTINGS
@_DEVICE
@_QUIET
def pretrain(base: Path, documents: Path, out: Path, settings: tuple[str, ...], device: str, quiet: bool) -> None:
    """Train the checkpoint BASE on the text of DOCUMENTS; OUT becomes a run folder.

    Adapters by default; --set lora=none trains all weights. The same as `puna raise DOCUMENTS --base BASE --until
    pretrain`.
    """
    from puna.recipes.raising import from_base, raise_model
    from puna.recipes.run_folder import checkpoint_folder

    source = str(checkpoint_folder(base).expanduser().resolve())
    config = from_base(source, str(documents.expanduser().resolve()))
    config = replace(config, device=device, pretrain=override(config.pretrain, settings))
    raise_model(config, out, for_terminal(quiet), until="pretrain")
    click.echo(f"saved in {out}; talk to it: puna chat {out}")


@command.command("sft")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("conversations", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@_SETTINGS
@_DEVICE
@_QUIET
def sft(base: Path, conversations: Path, out: Path, settings: tuple[str, ...], device: str, quiet: bool) -> None:
    """Fine-tune the checkpoint BASE on CONVERSATIONS (JSONL, {"messages": [...], "tools": [...]}) into OUT.

    Learns the assistant's tokens alone. Adapters by default; --set lora=none trains all weights. Cut off, the same
    command goes on.
    """
    from puna.recipes.raising import from_base
    from puna.recipes.tuning import tune_checkpoint

    config = override(from_base(str(base)).sft, settings)
    record = tune_checkpoint(base, conversations, out, config, device, for_terminal(quiet))
    click.echo(f"loss {record.metrics['rows'].get('loss', float('nan')):.4f}; talk to it: puna chat {out}")
