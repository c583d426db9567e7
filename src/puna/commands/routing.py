"""`puna route explain`: what a request costs at each provider of a model, who may answer, and why the others lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from puna.base.command_line import SETTINGS

if TYPE_CHECKING:
    from puna.stack.routing.decision import Decision


@click.group("route", context_settings=SETTINGS)
def command() -> None:
    """Which provider answers a request, by price, speed, quality and privacy."""


@command.command("explain")
@click.option("--model", default="llama-3.1-405b-instruct", show_default=True, help="A model of the price file.")
@click.option(
    "--request", "file", type=click.Path(path_type=Path), help="A chat request (JSON); its size is estimated."
)
@click.option("--prompt", default=0, help="Tokens of the prompt.")
@click.option("--output", default=0, help="Tokens of the answer that are expected.")
@click.option("--max-tokens", default=0, help="Tokens of the answer at most (default: as expected).")
@click.option("--cached", default=0, help="Tokens of the prompt that every provider has in its cache.")
@click.option(
    "--provider", "wishes", help='Limits and preferences: \'{"precision": "fp8", "max_price": {"prompt": 2}}\'.'
)
@click.option("--prices", type=click.Path(path_type=Path), help="A price file of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole decision as JSON.")
def explain(
    model: str,
    file: Path | None,
    prompt: int,
    output: int,
    max_tokens: int,
    cached: int,
    wishes: str | None,
    prices: Path | None,
    as_json: bool,
) -> None:
    """Print what a request would cost everywhere, who qualifies, and the order in which they would be asked.

    Prices come from a dated file with a source for every row; nobody is asked and no key is needed.
    """
    from puna.base.errors import InputError
    from puna.base.files import read_json
    from puna.stack.errors import ApiError
    from puna.stack.routing.config import RouteConfig
    from puna.stack.routing.explain import facts_of, judge, offers
    from puna.stack.routing.prices import built_in, read_prices
    from puna.stack.routing.wishes import read_wishes

    request = read_json(file) if file else {}
    if not isinstance(request, dict):
        raise InputError(f"{file} holds no object.", hint='Write a chat request: {"messages": [...]}.')
    asked = _object(wishes, "--provider") or request.get("provider")
    book = read_prices(prices) if prices else built_in()
    try:
        if file:
            facts = _facts(request, output, max_tokens)
        else:
            facts = facts_of(prompt or 1000, output or max_tokens or 500, max_tokens or None)
        decision = judge(facts, RouteConfig(), read_wishes(asked), offers(book, model, cached))
    except ApiError as error:
        raise InputError(error.message) from error
    if as_json:
        click.echo(json.dumps({**decision.to_json(), "prices": book.fingerprint}))
        return
    _print(decision)


@command.command("reference")
@click.argument("url")
@click.option("--model", required=True, help="The name under which the server offers it.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The file of questions to write (TOML).")
@click.option("--rounds", default=5, show_default=True, help="How often each question is put.")
@click.option("--key-env", default="OPENAI_API_KEY", show_default=True, help="Environment variable with the key.")
@click.option("--profile", default="vllm", show_default=True, help="What kind of server it is.")
def reference(url: str, model: str, out: Path, rounds: int, key_env: str, profile: str) -> None:
    """Measure a model that is known to be sound, for the canaries of a route.

    URL is a server with OpenAI's API that gives log-probabilities. Providers of the same model are then compared with
    the figures in the written file: [routes.NAME.canaries] questions = "FILE".
    """
    import asyncio
    import os

    from puna.base.errors import RemoteError
    from puna.base.files import write_text
    from puna.stack.providers.openai import OpenAIConfig, OpenAIProvider
    from puna.stack.routing import canaries

    async def measure() -> list[canaries.Question]:
        provider = OpenAIProvider("reference", OpenAIConfig(url, key=os.environ.get(key_env, ""), profile=profile))
        try:
            return await canaries.reference(provider, model, canaries.read_questions(), max(2, rounds))
        finally:
            await provider.stop()

    found, every = asyncio.run(measure()), len(canaries.read_questions())
    if not found:
        raise RemoteError(f"{model} answers none of the {every} questions right.", hint="Write questions of your own.")
    write_text(out, canaries.to_toml(found))
    click.echo(f"{out}: {len(found)} of {every} questions, which {model} answers right every time.")


def _object(text: str | None, option: str) -> dict[str, Any]:
    from puna.base.errors import InputError

    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise InputError(f"{option} is not JSON: {error}.", hint='Write it as {"precision": "fp8"}.') from error
    if not isinstance(found, dict):
        raise InputError(f"{option} is {found!r}; it must be an object.")
    return found


def _facts(request: dict[str, Any], output: int, max_tokens: int) -> Any:
    """The facts of a chat request in a file."""
    from puna.core.chat import Conversation
    from puna.core.completion import SamplingParams
    from puna.stack.providers.provider import Ask
    from puna.stack.routing.config import RouteConfig
    from puna.stack.routing.facts import of_ask

    chat = Conversation.from_json(request)
    longest = max_tokens or request.get("max_completion_tokens") or request.get("max_tokens") or max(output, 512)
    params = SamplingParams(max_tokens=int(longest), n=int(request.get("n") or 1))
    return of_ask(Ask("", chat.messages, params, chat.tools), output or RouteConfig().expected_output)


def _print(decision: Decision) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    facts = decision.facts
    counted = "" if facts.counted else ", estimated"
    click.echo(
        f"{facts.prompt_tokens:,} tokens of prompt{counted}, {facts.expected_output:,} of answer expected, "
        f"{facts.max_output:,} at most. Strategy: {decision.policy.strategy}."
    )
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("", "provider", "in / out $/M", "context", "precision", "costs", "at most", "why"):
        left = heading in ("provider", "precision", "why")
        table.add_column(heading, justify="left" if left else "right", overflow="fold")
    by_key = {candidate.key: candidate for candidate in decision.candidates}
    for verdict in decision.verdicts:
        candidate = by_key[verdict.candidate]
        table.add_row(
            str(verdict.place) if verdict.place else "-",
            candidate.provider,
            f"{candidate.input:.2f} / {candidate.output:.2f}",
            f"{candidate.context:,}" if candidate.context else "?",
            candidate.precision or "?",
            f"${verdict.cost:.6f}",
            f"${verdict.most:.6f}",
            "; ".join(verdict.why),
        )
    console = Console()
    # A pipe has no width; rich would cut the reasons at 80 columns.
    (console if console.is_terminal else Console(width=170)).print(table)
    if not decision.order:
        click.echo("Nobody qualifies.")
