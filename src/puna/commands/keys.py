"""`puna keys`: who may use a server, and for what."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from puna.base.command_line import SETTINGS
from puna.commands.serving import read, state_folder

_DAY = 86_400.0


@click.group("keys", context_settings=SETTINGS)
@click.option("--state", type=click.Path(path_type=Path), help="The server's folder.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Its stack.toml.")
@click.pass_context
def command(context: click.Context, state: Path | None, config_path: Path | None) -> None:
    """Keys for a server: who may use it, and for what."""
    from puna.stack.operation.server import open_store

    config = read(config_path, {})
    context.obj = open_store(config.storage.database, state_folder(state, None))


@command.command("create")
@click.argument("owner")
@click.option("--scope", "scopes", multiple=True, help="chat, responses, files, ...; everything by default.")
@click.option("--days", default=0.0, help="After how many days it ends; never by default.")
@click.option("--name", default="", help="What it is for.")
@click.pass_obj
def create_key(store: Any, owner: str, scopes: tuple[str, ...], days: float, name: str) -> None:
    """Make a key for OWNER, and print it: it is shown this once."""
    from puna.stack.operation import keys

    text, key = keys.create(store, owner, scopes or ("*",), time.time() + days * _DAY if days else 0.0, name)
    click.echo(text)
    click.echo(f"key {key.id} of {owner}; keep it, it cannot be shown again", err=True)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@click.pass_obj
def list_keys(store: Any, as_json: bool) -> None:
    """The keys that there are, without their secrets."""
    from puna.stack.operation import keys

    found = keys.listed(store)
    if as_json:
        rows = [{"id": k.id, "owner": k.owner, "scopes": sorted(k.scopes), "expires": k.expires, "name": k.name}
                for k in found]  # fmt: skip
        click.echo(json.dumps(rows))
        return
    for key in found:
        ends = time.strftime("%Y-%m-%d", time.gmtime(key.expires)) if key.expires else "never"
        click.echo(f"{key.id}  {key.owner:20} {','.join(sorted(key.scopes)):20} ends {ends}  {key.name}")


@command.command("revoke")
@click.argument("id")
@click.pass_obj
def revoke_key(store: Any, id: str) -> None:
    """End a key at once."""
    from puna.base.errors import InputError
    from puna.stack.operation import keys

    if not keys.revoke(store, id):
        raise InputError(f"There is no key {id!r}.", hint="List them with: puna keys list.")
    click.echo(f"key {id} has ended")
