"""`puna tokenizer`: train a tokenizer, and look at what it does to a text."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from puna.base.command_line import SETTINGS
from puna.base.progress import for_terminal


@click.group("tokenizer", context_settings=SETTINGS)
def command() -> None:
    """Train a tokenizer, and look at what it does."""


@command.command("train")
@click.argument("documents", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--vocab-size", default=32_000, show_default=True, help="All ids, the 256 special ones included.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def train(documents: Path, out: Path, vocab_size: int, quiet: bool) -> None:
    """Train a byte-level BPE with Llama 3's split and special tokens on DOCUMENTS; write all its files to OUT."""
    from puna.data.corpus import read_folder
    from puna.tokenizer import Tokenizer

    progress = for_terminal(quiet)
    read, _ = read_folder(documents, progress=progress)
    tokenizer = Tokenizer.train((document.text for document in read), vocab_size, progress=progress)
    tokenizer.save(out)
    size = sum(len(document.text.encode()) for document in read)
    tokens = sum(map(len, tokenizer.encode_batch([document.text for document in read])))
    click.echo(f"{tokenizer.vocab_size:,} ids, {size / tokens:.2f} bytes a token on the documents; saved to {out}")


@command.command("encode")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("text", required=False)
@click.option("--bos", is_flag=True, help="Put the start token before it.")
@click.option("--allow-special", is_flag=True, help="Read names of special tokens in the text as special tokens.")
@click.option("--pieces", is_flag=True, help="Show each token's text beside its id.")
def encode(path: Path, text: str | None, bos: bool, allow_special: bool, pieces: bool) -> None:
    """Print the ids of TEXT (or of standard input) under the tokenizer at PATH, as a JSON list."""
    from puna.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(path)
    ids = tokenizer.encode(sys.stdin.read() if text is None else text, bos=bos, allow_special=allow_special)
    if pieces:
        for token in ids:
            click.echo(f"{token:>8}  {tokenizer.token_bytes(token)!r}")
    else:
        click.echo(json.dumps(ids))


@command.command("decode")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("ids", nargs=-1, type=int, required=True)
def decode(path: Path, ids: tuple[int, ...]) -> None:
    """Print the text of IDS under the tokenizer at PATH."""
    from puna.tokenizer import Tokenizer

    click.echo(Tokenizer.load(path).decode(ids))


@command.command("convert")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def convert(path: Path, out: Path) -> None:
    """Write the tokenizer at PATH (either format) to OUT in both formats, with identical ids."""
    from puna.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(path)
    tokenizer.save(out)
    click.echo(f"{tokenizer.vocab_size:,} ids; saved to {out}")
