from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from puna import cli
from puna.base import errors
from puna.cli import COMMANDS, INTERRUPTED, run


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """A command `plan` that raises the exception put into this list."""
    raised: list[BaseException] = []

    @click.command("plan")
    def command() -> None:
        raise raised[0]

    monkeypatch.setattr("puna.commands.planning.command", command)
    return raised


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str], flag: str):
    assert run([flag]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for name, (_, line) in COMMANDS.items():
        assert f"{name} {line}" in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_its_own_commands(capsys: pytest.CaptureFixture[str], name: str):
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    inner = command.commands if isinstance(command, click.Group) else ()
    for arguments in ([name], *([name, other] for other in inner)):
        for flag in ("--help", "-h"):
            assert run([*arguments, flag]) == 0
            shown = capsys.readouterr().out
            assert shown.startswith(f"Usage: puna {' '.join(arguments)} ")
            assert len(shown.splitlines()) > 5


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]):
    assert run([]) in (0, 2)  # click 8.2 began to count it as a mistake
    captured = capsys.readouterr()
    assert "Usage: puna" in captured.out + captured.err


def test_the_version_is_the_installed_packages(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "puna-9.8.7.dist-info").mkdir()
    (tmp_path / "puna-9.8.7.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: puna\nVersion: 9.8.7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "puna, version 9.8.7\n"


@pytest.mark.parametrize(("typed", "hint"), [("rais", "Did you mean 'raise'?"), ("xyzzy", "Known: bench, chat, ")])
def test_an_unknown_command_names_the_near_one(capsys: pytest.CaptureFixture[str], typed: str, hint: str):
    assert run([typed, "--whatever"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"There is no command '{typed}'. {hint}" in captured.err


@pytest.mark.parametrize("arguments", [["--nonsense"], ["plan", "--nonsense"], ["quantize"]])
def test_a_wrong_call_is_explained(capsys: pytest.CaptureFixture[str], arguments: list[str]):
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert "Usage: puna" in captured.err
    assert "Error: " in captured.err
    assert "Traceback" not in captured.err


def kinds() -> list[type[errors.PunaError]]:
    return [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.PunaError)]


@pytest.mark.parametrize("kind", kinds())
def test_an_error_is_its_sentence_its_hint_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], failing: list[BaseException], kind: type[errors.PunaError]
):
    failing.append(kind("The disk is full.", hint="Free some space."))
    assert run(["plan"]) == kind.exit_code > 0
    captured = capsys.readouterr()
    assert captured.err == "Error: The disk is full.\n  Free some space.\n"
    assert captured.out == ""


def test_a_real_command_fails_so(capsys: pytest.CaptureFixture[str]):
    assert run(["plan", "llama-3.1-8bb"]) == errors.ConfigError.exit_code
    captured = capsys.readouterr()
    assert captured.err.startswith("Error: There is no size 'llama-3.1-8bb'.\n  Did you mean")
    assert "Traceback" not in captured.err


def test_a_full_disk_is_told_wherever_it_is_met(capsys: pytest.CaptureFixture[str], failing: list[BaseException]):
    failing.append(OSError(28, "No space left on device"))
    assert run(["plan"]) == errors.StorageError.exit_code
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], failing: list[BaseException], interrupt: BaseException
):
    failing.append(interrupt)
    assert run(["plan"]) == INTERRUPTED
    assert "run the same command again" in capsys.readouterr().err


def test_a_defect_is_not_hidden(failing: list[BaseException]):
    failing.append(ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        run(["plan"])


@pytest.mark.parametrize(("arguments", "code"), [(["plan", "cria-3m"], 0), (["rais"], 2)])
def test_main_leaves_with_the_exit_code(arguments: list[str], code: int):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == code


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_help_imports_no_torch_and_no_command():
    code = (
        "import sys; from puna.cli import run; run(['--help']);"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('puna.commands')])"
    )
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module():
    told = python("-m", "puna", "plan", "nonsense")
    assert (told.returncode, told.stdout) == (errors.ConfigError.exit_code, "")
    assert told.stderr.startswith("Error: There is no size 'nonsense'.")


def test_a_closed_pipe_ends_quietly():
    code = (
        "import os, sys; from puna.cli import run; reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1);"
        "sys.exit(run(['plan', '--json']))"
    )
    told = python("-c", code)
    assert (told.returncode, told.stderr) == (1, "")
