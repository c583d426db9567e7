"""`puna serve`: the server of a run, of any model, or of a `stack.toml`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from puna.base.command_line import SETTINGS

if TYPE_CHECKING:
    from puna.stack.config import StackConfig
    from puna.stack.providers.provider import Provider


@click.command("serve", context_settings=SETTINGS)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="A stack.toml: providers, limits, keys.")
@click.option("--host", default=None, help="Address to listen on; any but 127.0.0.1 needs keys.")
@click.option("--port", default=None, type=click.IntRange(0, 65535), help="8321 by default; 0 takes a free one.")
@click.option("--tls-cert", default=None, metavar="FILE", help="Certificate in PEM form: serve HTTPS.")
@click.option("--tls-key", default=None, metavar="FILE", help="The certificate's key in PEM form.")
@click.option("--state", type=click.Path(path_type=Path), help="Folder for conversations, files and keys.")
@click.option("--name", default=None, help="What the model is called; by default its folder's name.")
@click.option("--dtype", default=None, help="Of the computation; by default what the machine is fastest at.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, ...")
@click.option("--quiet", "-q", is_flag=True, help="No line for each request.")
def command(
    path: Path | None,
    config_path: Path | None,
    state: Path | None,
    name: str | None,
    dtype: str | None,
    device: str,
    quiet: bool,
    **listening_at: Any,
) -> None:
    """Serve the model in PATH (a run folder, a checkpoint, a GGUF file) under OpenAI's and Llama Stack's API.

    The chat page is at the address that is printed. Without PATH the providers of --config are served.
    """
    from puna.base.errors import ConfigError
    from puna.stack.operation import server

    if path is None and config_path is None:
        raise ConfigError("There is nothing to serve.", hint="Give a run folder, or --config stack.toml.")
    config = read(config_path, listening_at)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("puna.access").setLevel(logging.WARNING if quiet else logging.INFO)
    more: dict[str, Provider] = {} if path is None else _local(path, name, dtype, device)
    with server.listen(config.server) as listening:
        stack, app = server.build(config, state_folder(state, path), more)
        _page(app, stack, path)
        server.serve(app, config.server, listening, lambda address: click.echo(f"Puna answers at {address}", err=True))


def read(path: Path | None, given: Mapping[str, Any]) -> StackConfig:
    """The settings of a file, or the defaults, under those of `[server]` that are given and not None."""
    from puna.stack.config import StackConfig, read_config

    config = read_config(path) if path else StackConfig()
    server = {key: value for key, value in given.items() if value is not None}
    return replace(config, server=replace(config.server, **server))


def state_folder(state: Path | None, path: Path | None) -> Path:
    """Where a server keeps things: where it is told to, in the run that it serves, or in the user's own folder."""
    from puna.recipes.run_folder import is_run

    if state is not None:
        return state.expanduser()
    if path is not None and is_run(path):
        return path.expanduser() / "stack"
    return Path.home() / ".puna"


def _local(path: Path, name: str | None, dtype: str | None, device: str) -> dict[str, Provider]:
    """The engine with one model, which loads while the server answers already."""
    from puna.recipes.run_folder import checkpoint_folder, load_model
    from puna.stack.providers.engine import EngineProvider

    checkpoint_folder(path)  # a path that holds no model is refused now

    def load() -> Any:
        from puna.base.device import fast_dtype, resolve_device

        place = resolve_device(device)
        return load_model(path, dtype or str(fast_dtype(place)).removeprefix("torch."), str(place))

    return {"local": EngineProvider("local", {name or path.expanduser().resolve().name: load})}


def _page(app: Any, stack: Any, path: Path | None) -> None:
    """The chat page, and cited answers where a run's documents are at hand."""
    from puna.apps.chat import page
    from puna.recipes.run_folder import is_run

    if path is not None and is_run(path):
        from puna.recipes.documents import RunDocuments

        if documents := RunDocuments.of(path):
            stack.parts["reader"] = documents
    app.include_router(page.router)
