from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.config import from_dict, to_dict
from puna.base.errors import ConfigError
from puna.core.chat import Message, ToolSpec
from puna.tokenizer.preamble import ChatStyle, Preamble, tool_prompt
from puna.tokenizer.tool_calls import ToolFormat

SEARCH, WOLFRAM, CODE = ToolSpec("brave_search"), ToolSpec("wolfram_alpha"), ToolSpec("code_interpreter")
SONGS = ToolSpec("songs", "Trending songs", {"type": "object", "properties": {"n": {"type": "integer"}}})
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 21 September 2024"
DATED = ChatStyle(today="21 September 2024")

STYLES = st.builds(
    ChatStyle,
    tool_format=st.sampled_from(["json", "function_tag", "pythonic"]),
    tools_in=st.sampled_from(["auto", "system", "user"]),
    environment=st.sampled_from([None, True, False]),
    knowledge_date=st.sampled_from(["", "December 2023"]),
    today=st.sampled_from(["", "24 September 2024"]),
    dates=st.sampled_from(["auto", "always", "never"]),
)
TOOLS = st.lists(st.sampled_from([SEARCH, WOLFRAM, CODE, SONGS]), unique_by=lambda tool: tool.name)


@pytest.mark.parametrize(
    ("style", "tools", "lines"),
    [
        (ChatStyle(), [], ""),
        (DATED, [], DATES),
        (ChatStyle(dates="always"), [], "Cutting Knowledge Date: December 2023"),
        (ChatStyle(dates="always", knowledge_date=""), [], ""),
        (DATED, [SEARCH, WOLFRAM], f"Environment: ipython\nTools: brave_search, wolfram_alpha\n{DATES}"),
        (DATED, [SEARCH, WOLFRAM, CODE], f"Environment: ipython\nTools: brave_search, wolfram_alpha\n{DATES}"),
        (ChatStyle(dates="never"), [WOLFRAM], "Environment: ipython\nTools: wolfram_alpha"),
        (ChatStyle(dates="never"), [CODE], "Environment: ipython"),
        (DATED, [CODE], f"Environment: ipython\n\n{DATES}"),
        (DATED, [SONGS], f"Environment: ipython\n\n{DATES}"),
        (ChatStyle(tool_format="function_tag", dates="never"), [SONGS], ""),
        (ChatStyle(tool_format="function_tag", dates="never"), [SONGS, CODE], "Environment: ipython"),
        (ChatStyle(environment=False, dates="never"), [SONGS, SEARCH], "Tools: brave_search"),
        (ChatStyle(environment=True), [], "Environment: ipython"),
    ],
)
def test_the_lines_of_the_system_message(style: ChatStyle, tools: list[ToolSpec], lines: str) -> None:
    assert Preamble(style, tools).system == lines


def test_metas_example_of_built_in_tools() -> None:
    (message,) = Preamble(DATED, [SEARCH, WOLFRAM]).add([Message("system", "You are a helpful assistant.\n")])
    assert message.content == (
        "Environment: ipython\nTools: brave_search, wolfram_alpha\nCutting Knowledge Date: December 2023\n"
        "Today Date: 21 September 2024\n\nYou are a helpful assistant.\n"
    )


@pytest.mark.parametrize("tool_format", ["json", "function_tag", "pythonic"])
@pytest.mark.parametrize("place", ["system", "user"])
def test_custom_tools_are_defined_where_the_style_says(tool_format: ToolFormat, place: str) -> None:
    style = ChatStyle(tool_format=tool_format, tools_in=place, dates="never", environment=False)  # type: ignore[arg-type]
    user = Message("user", "Hi")
    first, last = Preamble(style, [SONGS, SEARCH]).add([user])[-2:]
    assert last == user
    assert first.role == place
    assert "Trending songs" in first.content
    assert '"n": {' in first.content
    assert "brave_search" not in first.content.replace("Tools: brave_search", "")


def test_the_places_of_metas_documents() -> None:
    assert Preamble(ChatStyle(), [SONGS]).user
    assert Preamble(ChatStyle(tool_format="function_tag"), [SONGS]).user
    pythonic = Preamble(ChatStyle(tool_format="pythonic", dates="never"), [SONGS])
    assert (pythonic.user, pythonic.environment) == ("", False)
    assert pythonic.system.startswith(tool_prompt("pythonic").split("{")[0])


def test_json_definitions_are_openais_and_pythonic_ones_say_dict() -> None:
    before, after = tool_prompt("json").split("{functions}")
    text = Preamble(ChatStyle(), [SONGS, SONGS]).user.removeprefix(before).removesuffix(after)
    assert [json.loads(part) for part in text.split("\n\n")] == [SONGS.to_json()] * 2
    text = Preamble(ChatStyle(tool_format="pythonic", dates="never"), [SONGS]).system
    (function,) = json.loads(text.split(tool_prompt("pythonic").split("{functions}")[0])[1])
    assert function == {**SONGS.to_json()["function"], "parameters": {**SONGS.parameters, "type": "dict"}}
    assert SONGS.parameters["type"] == "object"


@given(
    style=STYLES,
    tools=TOOLS,
    contents=st.lists(st.text(max_size=10), max_size=3),
    system=st.none() | st.text(max_size=10),
)
def test_strip_undoes_add(style: ChatStyle, tools: list[ToolSpec], contents: list[str], system: str | None) -> None:
    preamble = Preamble(style, tools)
    messages = [] if system is None else [Message("system", system)]
    messages += [Message("user", content) for content in contents]
    assert preamble.strip(preamble.add(messages)) == messages
    assert preamble.strip(preamble.add(preamble.add(messages))) == preamble.add(messages)


def test_strip_leaves_what_add_did_not_write() -> None:
    messages = [Message("system", "Environment: ipython"), Message("user", "Hi")]
    assert Preamble(DATED, [SONGS, SEARCH]).strip(messages) == messages
    assert Preamble(DATED, [SONGS]).strip([]) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("tool_format", "xml"), ("tools_in", "tool"), ("dates", "sometimes"), ("tool_role", ""), ("tool_role", "user")],
)
def test_a_style_that_cannot_be_is_refused(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=setting):
        ChatStyle(**{setting: value})  # type: ignore[arg-type]


def test_a_style_is_a_config() -> None:
    style = ChatStyle(tool_format="pythonic", environment=True, today="1 May 2025")
    assert from_dict(ChatStyle, to_dict(style)) == style
