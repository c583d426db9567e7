"""`puna sandbox`: which sandbox holds on this machine, and why the others are not used."""

from __future__ import annotations

import json

import click

from puna.base.command_line import SETTINGS


@click.command("sandbox", context_settings=SETTINGS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> int:
    """Attack every sandbox that runs foreign code here, and print which hold.

    The first that holds runs the code of code tasks and of the code interpreter. Exit code 6: none does.
    """
    from puna.base.errors import ResourceError
    from puna.sandbox import probe

    standings = [probe.standing(tier) for tier in probe.TIERS]
    used = next((each.sandbox.name for each in standings if each.usable), None)
    if as_json:
        found = {each.sandbox.name: {"breaches": each.breaches, "seconds": each.seconds} for each in standings}
        click.echo(json.dumps({"used": used, "sandboxes": found}))
    else:
        for each in standings:
            said = "used" if each.sandbox.name == used else "holds too" if each.usable else "not used"
            click.echo(f"{each.sandbox.name:<12} {said}  (attacked for {each.seconds:.1f} s)")
            for breach in each.breaches:
                click.echo(f"{'':<12} {breach}")
        if used is None:
            click.echo("Code that nobody trusts is not run on this machine.")
    return 0 if used else ResourceError.exit_code
