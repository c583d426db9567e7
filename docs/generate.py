"""Writes docs/commands.md from the commands themselves: `python docs/generate.py`. A test keeps the two equal."""

from __future__ import annotations

import inspect
from pathlib import Path

import click

PAGE = Path(__file__).parent / "commands.md"


def reference() -> str:
    """The page."""
    from puna.cli import COMMANDS, cli

    lines = [
        "# The command line",
        "",
        "Made by `python docs/generate.py` from the commands' own help. Every command also takes `--help`.",
        "",
    ]
    context = click.Context(cli, info_name="puna")
    for name, (_, line) in COMMANDS.items():
        command = cli.get_command(context, name)
        assert command is not None
        lines += [f"## puna {name}", "", line, ""]
        if isinstance(command, click.Group):
            for part, child in command.commands.items():
                lines += section(child, f"puna {name} {part}", level=3)
        else:
            lines += section(command, f"puna {name}", level=0)
    return "\n".join(lines).rstrip() + "\n"


def section(command: click.Command, name: str, level: int) -> list[str]:
    """One command: its usage, what it does, and its options."""
    # The names that the command line gives: click keeps the first help option that a command is asked for.
    context = click.Context(command, info_name=name, help_option_names=["-h", "--help"])
    usage = " ".join(command.collect_usage_pieces(context))
    text = inspect.cleandoc(command.help or "")
    lines = [f"{'#' * level} {name}", ""] if level else []
    lines += ["```", f"{name} {usage}", "```", "", text, ""]
    records = [param.get_help_record(context) for param in command.params if isinstance(param, click.Option)]
    rows = [f"| `{record[0]}` | {record[1]} |" for record in records if record]
    return [*lines, "| option | |", "|---|---|", *rows, ""] if rows else lines


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
