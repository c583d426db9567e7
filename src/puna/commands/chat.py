"""`puna chat`: talk to a model in the terminal, or pipe one question in."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from puna.apps.chat.session import ChatSession
from puna.apps.chat.terminal import Terminal
from puna.base.command_line import SETTINGS
from puna.base.config import override
from puna.base.errors import ConfigError
from puna.core.completion import SamplingParams


@click.command("chat", context_settings=SETTINGS)
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--server", metavar="URL", help="Talk to a model of `puna serve` at URL, which keeps the conversation.")
@click.option(
    "--conversation", metavar="ID", default="", help="With --server: go on with this one; `last` is the last."
)
@click.option("--message", "-m", help="Ask this one question, print the answer, and leave.")
@click.option("--system", help="A system message.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A sampling setting: temperature=0.7.")
@click.option("--documents/--no-documents", default=True, help="Answer from the run's documents (default) or not.")
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--allow-pickle", is_flag=True, help="Read Meta's .pth files (weights only, in a child process).")
def command(
    path: Path | None,
    server: str | None,
    conversation: str,
    message: str | None,
    system: str | None,
    settings: tuple[str, ...],
    documents: bool,
    **loading: Any,
) -> None:
    """Talk to the model in PATH (a run folder of `puna raise`, or a checkpoint), or to one of a server.

    With a run folder each question is answered by a quotation from its documents, with its place, or by saying that
    they do not hold the answer. Text that is piped in is one question. With --server the conversations are those of
    the chat page; the key is read from PUNA_API_KEY.
    """
    if (path is None) == (server is None):
        raise ConfigError("A chat needs a model.", hint="Give either a PATH or --server URL.")
    if server is not None:
        session, about = _served(server, conversation, documents)
        session.params = override(session.params, settings)
    else:
        session, about = _loaded(Path(str(path)), settings, documents, **loading)
    if system:
        session.set_system(system)
    _talk(session, about, message)


def _served(url: str, conversation: str, documents: bool) -> tuple[ChatSession, str]:
    """A session that a server keeps, and what is said of it."""
    from puna.apps.chat.remote_session import Server, open_session

    session = open_session(Server(url, os.environ.get("PUNA_API_KEY", "")), conversation=conversation)
    if not documents:
        session.reader = None
    kept = f", {len(session.messages)} messages so far" if session.messages else ""
    return session, f"{session.model_name} at {url}{kept}"


def _loaded(
    path: Path, settings: tuple[str, ...], documents: bool, dtype: str, device: str, allow_pickle: bool
) -> tuple[ChatSession, str]:
    """A session with a model of this machine, and what is said of it."""
    from puna.model.budget import parameters
    from puna.recipes.reading import open_reader
    from puna.recipes.run_folder import index_folder, load_model

    folder = index_folder(path) if documents else None
    # Answers from documents are quotations, which chance would only spoil.
    params = override(SamplingParams(temperature=0.0) if folder else SamplingParams(), settings)
    model = load_model(path, dtype, device, allow_pickle=allow_pickle)
    session = ChatSession(model, params)
    if folder:
        session.reader = open_reader(path, model)
    size = f"{parameters(model.config) / 1e6:,.1f} million parameters"
    return session, f"{path}: {size}, {model.config.max_position_embeddings:,} tokens of context"


def _talk(session: ChatSession, about: str, message: str | None) -> None:
    terminal = Terminal(session)
    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read().strip()
    if message is not None:
        terminal.once(message)
        return
    import readline  # noqa: F401 - gives `input` a history and line editing

    click.echo(about)
    click.echo("/help lists the commands, /quit leaves.")
    terminal.run()
