from __future__ import annotations

from importlib import import_module

import pytest
from click.testing import CliRunner

from puna.cli import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_a_command_explains_itself_when_it_is_called_alone(name: str, option: str) -> None:
    command = import_module(f"puna.commands.{COMMANDS[name][0]}").command
    result = CliRunner().invoke(command, [option])
    assert (result.exit_code, result.output.partition(":")[0]) == (0, "Usage")
