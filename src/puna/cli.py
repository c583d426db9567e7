"""The command line: a table of commands, each imported only when it is called.

`puna --help` must answer at once, so nothing here imports a command's module, and no command's module is imported to
print its line of help. What a user can mend is printed as a sentence with its way out; a traceback is a defect.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from puna.base.command_line import SETTINGS
from puna.base.errors import PunaError, storage_errors

# command -> (module, its line in `puna --help`)
COMMANDS = {
    "raise": ("raising", "From a folder of documents to a model that answers."),
    "chat": ("chat", "Talk to a raised model, or to any checkpoint."),
    "serve": ("serving", "OpenAI's and Llama Stack's API, and a chat page, over a model or a run."),
    "route": ("routing", "Which provider answers a request, and what it costs."),
    "keys": ("keys", "Who may use a server, and for what."),
    "eval": ("evaluation", "Measure a model: bits per byte, answers to questions, public question sets."),
    "compare": ("comparing", "Whether one model does better than another on the same questions."),
    "train": ("training", "Train a checkpoint on documents or on conversations."),
    "tokenizer": ("tokenizing", "Train a tokenizer, and look at what it does."),
    "data": ("data", "Read documents, and make conversations of them."),
    "quantize": ("quantizing", "A checkpoint in FP8, INT8 or INT4, and what it saves and loses."),
    "export": ("exporting", "A checkpoint for llama.cpp, vLLM, transformers or TensorRT-LLM."),
    "bench": ("benchmarking", "How fast a model answers here, beside what the machine allows."),
    "convert": ("converting", "Turn checkpoints from one layout into another; merge adapters."),
    "plan": ("planning", "What a model of a size costs in memory and computation."),
    "sandbox": ("sandboxing", "Which sandbox for foreign code holds on this machine."),
}
INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands live in `puna.commands` and are imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        return import_module(f"puna.commands.{COMMANDS[cmd_name][0]}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Adds the nearest command to the message about an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from puna.base.errors import near

            ctx.fail(f"There is no command {args[0]!r}. {near(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(package_name="puna", prog_name="puna")
def cli() -> None:
    """Puna raises language models: documents in, a private assistant out.

    Start with `puna raise`, which needs nothing but this machine.
    """


def main(arguments: list[str] | None = None) -> None:
    """The entry point: runs a command and turns errors into one message and an exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit code. When the reader of a pipe has gone, click leaves with code 1."""
    try:
        with storage_errors("its files"):
            result: Any = cli.main(args=arguments, standalone_mode=False, prog_name="puna")
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except PunaError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted. What was finished is kept; run the same command again to go on.", err=True)
        return INTERRUPTED
