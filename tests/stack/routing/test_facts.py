"""Facts of a request: what it needs, and estimates of tokens that bound what a tokenizer counts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from puna.core.chat import Message, ToolSpec
from puna.core.completion import Constraint, SamplingParams
from puna.stack.conversion import OPEN_END
from puna.stack.providers.provider import Ask
from puna.stack.routing.facts import Facts, of_ask
from puna.testing import tiny_tokenizer
from puna.tokenizer.chat import ChatFormat

TOOL = ToolSpec("look_up", "Finds a word.", {"type": "object", "properties": {"word": {"type": "string"}}})
FORMAT = ChatFormat(tiny_tokenizer())  # every byte is a token: no tokenizer of bytes counts more


@settings(max_examples=60)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=5), st.integers(0, 4))
def test_a_prompt_never_has_more_tokens_than_the_bound(texts: list[str], tools: int) -> None:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))
    specs = tuple(ToolSpec(f"tool_{i}", "Does a thing.", TOOL.parameters) for i in range(tools))
    facts = of_ask(Ask("m", messages, tools=specs), 100)
    assert len(FORMAT.render(messages, specs)) <= facts.most_prompt_tokens
    assert facts.prompt_tokens <= facts.most_prompt_tokens


def test_what_a_request_needs() -> None:
    message = (Message("user", "Hello"),)
    assert of_ask(Ask("m", message), 10).needs == ()
    schema = SamplingParams(constraint=Constraint("json_schema", {}), logprobs=2)
    assert of_ask(Ask("m", message, schema, (TOOL,)), 10).needs == ("tools", "json_schema", "logprobs")
    assert of_ask(Ask("m", message, SamplingParams(tool_choice="none"), (TOOL,)), 10).needs == ()
    assert of_ask(Ask("m", message, SamplingParams(constraint=Constraint("regex", "a+"))), 10).needs == ("regex",)


def test_answers_are_expected_as_they_usually_are_but_never_longer_than_allowed() -> None:
    facts = of_ask(Ask("m", (Message("user", "Hello"),), SamplingParams(max_tokens=50, n=3)), 400)
    assert (facts.expected_output, facts.max_output, facts.longest) == (150, 150, 50)
    assert of_ask(Ask("m", (Message("user", "Hi"),), SamplingParams(max_tokens=50)), 20).expected_output == 20


def test_an_answer_without_a_limit_gets_the_routes() -> None:
    ask = Ask("m", (Message("user", "Hello"),), SamplingParams(max_tokens=OPEN_END))
    facts = of_ask(ask, 100, counted=10, open_answer=2000)
    assert (facts.open_end, facts.longest, facts.max_output, facts.context) == (True, 2000, 2000, 110)


def test_a_count_wins_over_the_estimate() -> None:
    ask = Ask("m", (Message("user", "word " * 1000),), SamplingParams(max_tokens=10))
    assert of_ask(ask, 5, counted=1010).prompt_tokens == 1010
    assert of_ask(ask, 5, counted=1010).context == 1020
    assert of_ask(ask, 5).context > 1.25 * of_ask(ask, 5).prompt_tokens  # room for the estimate's error
    assert of_ask(ask, 5, counted=100_000).most_prompt_tokens == 100_000


def test_token_ids_are_counted_as_they_are() -> None:
    assert of_ask(Ask("m", prompt=[1, 2, 3]), 10).prompt_tokens == 3
    text = of_ask(Ask("m", prompt="x" * 400), 10)
    assert (text.prompt_tokens, text.most_prompt_tokens) == (101, 401)


def test_facts_are_equal_by_value() -> None:
    assert Facts(1, 2, 3, 4, 5) == Facts(1, 2, 3, 4, 5)
