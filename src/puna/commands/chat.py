"""`puna chat`: talk to a model in the terminal, or pipe one question in."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from puna.apps.chat.session import ChatSession
from puna.apps.chat.terminal import Terminal
from puna.base.config import override
from puna.core.completion import SamplingParams

_PASSAGES = 1


@click.command("chat")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--message", "-m", help="Ask this one question, print the answer, and leave.")
@click.option("--system", help="A system message.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A sampling setting: temperature=0.7.")
@click.option("--documents/--no-documents", default=True, help="Answer from the run's documents (default) or not.")
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--allow-pickle", is_flag=True, help="Read Meta's .pth files (weights only, in a child process).")
def command(
    path: Path,
    message: str | None,
    system: str | None,
    settings: tuple[str, ...],
    documents: bool,
    dtype: str,
    device: str,
    allow_pickle: bool,
) -> None:
    """Talk to the model in PATH: a run folder of `puna raise`, or a checkpoint.

    With a run folder each question is answered from the passage of the documents that fits it best. Text that is
    piped in is one question.
    """
    from puna.knowledge.index import PassageIndex
    from puna.model.budget import parameters
    from puna.recipes.run_folder import index_folder, load_model

    folder = index_folder(path) if documents else None
    # Answers from documents are quotations, which chance would only spoil.
    params = override(SamplingParams(temperature=0.0) if folder else SamplingParams(), settings)
    model = load_model(path, dtype, device, allow_pickle=allow_pickle)
    session = ChatSession(model, params)
    if folder:
        index = PassageIndex(folder)
        session.lookup = lambda question: [passage for passage, _ in index.search(question, _PASSAGES)]
    if system:
        session.set_system(system)
    terminal = Terminal(session)
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
    if message is not None:
        terminal.once(message)
        return
    import readline  # noqa: F401 - gives `input` a history and line editing

    size = f"{parameters(model.config) / 1e6:,.1f} million parameters"
    click.echo(f"{path}: {size}, {model.config.max_position_embeddings:,} tokens of context")
    click.echo("/help lists the commands, /quit leaves.")
    terminal.run()
