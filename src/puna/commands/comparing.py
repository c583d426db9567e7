"""`puna compare`: two folders of evaluation results, question by question."""

from __future__ import annotations

import json
from pathlib import Path

import click

from puna.base.command_line import SETTINGS


@click.command("compare", context_settings=SETTINGS)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(first: Path, second: Path, seed: int, as_json: bool) -> None:
    """Say whether the model of SECOND does better than that of FIRST, both folders of `puna eval --out`.

    The test is paired: McNemar's exact one for right or wrong, a bootstrap for other scores. Both must have been asked
    the same questions.
    """
    from puna.commands.evaluation import comparison_lines
    from puna.evals.harness import compare_folders

    found = compare_folders(first, second, seed)
    if as_json:
        click.echo(json.dumps({name: {k: c.to_json() for k, c in some.items()} for name, some in found.items()}))
    else:
        click.echo("\n".join(comparison_lines(found)))
