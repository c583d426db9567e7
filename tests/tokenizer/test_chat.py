from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from puna.base.errors import InputError, ToolCallError
from puna.core.chat import Conversation, Message, ToolCall, ToolSpec
from puna.tokenizer import ChatFormat, ChatStyle, Tokenizer, parse_tool_calls
from puna.tokenizer.tool_calls import CODE_TOOL, FunctionTag, ToolFormat, is_builtin, parse_tagged

FORMATS: list[ToolFormat] = ["json", "function_tag", "pythonic"]
SEARCH, CODE, WEATHER = ToolSpec("brave_search"), ToolSpec("code_interpreter"), ToolSpec("get_weather", "The weather")
SF = ToolCall("get_weather", {"city": "SF"})
USER = Message("user", "What is the weather in SF?")


def test_the_skeleton_in_llamas_ids(llama: Tokenizer) -> None:
    messages = [
        Message("system", "safe"),
        Message("user", "user"),
        Message("assistant", "unsafe"),
        Message("tool", "user"),
    ]
    assert llama.chat.render(messages) == [
        *(128_000, 128_006, 9125, 128_007, 271, 19193, 128_009),
        *(128_006, 882, 128_007, 271, 882, 128_009),
        *(128_006, 78191, 128_007, 271, 39257, 128_009),
        *(128_006, 23799, 4690, 128_007, 271, 882, 128_009),
        *(128_006, 78191, 128_007, 271),
    ]
    assert llama.chat.render([], add_generation_prompt=False) == [128_000]


def test_metas_examples(small: Tokenizer) -> None:
    """models/llama3_1/prompt_format.md: the answers word for word, and the prompts but for the tools' definitions."""
    dated = ChatFormat(small, ChatStyle(today="21 September 2024"))
    text = dated.render_text(
        [Message("system", "You are a helpful assistant.\n"), Message("user", "Search the web for the price of gold?")],
        [ToolSpec("brave_search"), ToolSpec("wolfram_alpha")],
    )
    assert text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
        "Tools: brave_search, wolfram_alpha\nCutting Knowledge Date: December 2023\nToday Date: 21 September 2024\n\n"
        "You are a helpful assistant.\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Search the web for the price of gold?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize(
    ("style", "tools", "message", "answer"),
    [
        (
            ChatStyle(),
            [SEARCH],
            Message("assistant", tool_calls=(ToolCall("brave_search", {"query": "latest price of 1oz gold"}),)),
            '<|python_tag|>brave_search.call(query="latest price of 1oz gold")<|eom_id|>',
        ),
        (
            ChatStyle(),
            [CODE],
            Message("assistant", tool_calls=(ToolCall("code_interpreter", {"code": "print(7)\n"}),)),
            "<|python_tag|>print(7)\n<|eom_id|>",
        ),
        (
            ChatStyle(),
            [WEATHER],
            Message("assistant", tool_calls=(SF,)),
            '<|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "SF"}}<|eom_id|>',
        ),
        (
            ChatStyle(environment=False),
            [WEATHER],
            Message("assistant", tool_calls=(SF,)),
            '{"type": "function", "name": "get_weather", "parameters": {"city": "SF"}}<|eot_id|>',
        ),
        (
            ChatStyle(tool_format="function_tag"),
            [WEATHER],
            Message("assistant", tool_calls=(SF,)),
            '<function=get_weather>{"city": "SF"}</function><|eot_id|>',
        ),
        (
            ChatStyle(tool_format="pythonic"),
            [WEATHER],
            Message("assistant", tool_calls=(SF, ToolCall("get_weather", {"city": "Seattle"}))),
            "[get_weather(city='SF'), get_weather(city='Seattle')]<|eot_id|>",
        ),
        (
            ChatStyle(tool_format="pythonic"),
            [WEATHER],
            Message("assistant", "Let me see.", (SF,), end_of_turn=False),
            "Let me see.<|python_tag|>[get_weather(city='SF')]<|eom_id|>",
        ),
        (ChatStyle(), [WEATHER], Message("assistant", "It is warm."), "It is warm.<|eot_id|>"),
        (ChatStyle(), [WEATHER], Message("assistant", "Wait.", end_of_turn=False), "Wait.<|eom_id|>"),
        (
            ChatStyle(tool_format="pythonic"),
            [],
            Message("assistant", tool_calls=(SF,)),
            "<|python_tag|>[get_weather(city='SF')]<|eot_id|>",
        ),
    ],
)
def test_what_the_assistant_says(
    small: Tokenizer, style: ChatStyle, tools: list[ToolSpec], message: Message, answer: str
) -> None:
    text = ChatFormat(small, style).render_text([USER, message], tools, add_generation_prompt=False)
    assert text.endswith(f"<|start_header_id|>assistant<|end_header_id|>\n\n{answer}")


def test_the_role_of_results_is_a_setting(small: Tokenizer) -> None:
    message = Message("tool", "25 C")
    assert "<|start_header_id|>ipython<" in small.chat.render_text([message])
    chat = ChatFormat(small, ChatStyle(tool_role="tool"))
    assert "<|start_header_id|>tool<" in chat.render_text([message])
    assert chat.parse(chat.render([message])) == chat.parse(small.chat.render([message])) == [message]


def test_contents_never_become_special_tokens(small: Tokenizer) -> None:
    hostile = "".join(small.special)
    messages = [Message("system", hostile), Message("user", hostile), Message("tool", hostile)]
    messages.append(Message("assistant", hostile, (ToolCall("f", {"x": hostile}),)))
    honest = [replace(message, content="x", tool_calls=message.tool_calls and (SF,)) for message in messages]
    special = [[id for id in small.chat.render(those) if id >= small.base_size] for those in (messages, honest)]
    assert special[0] == special[1]


def test_the_text_form_is_what_the_ids_decode_to(small: Tokenizer) -> None:
    messages = [USER, Message("assistant", "żółw", (SF,), end_of_turn=False), Message("tool", "25")]
    assert small.decode(small.chat.render(messages, [WEATHER])) == small.chat.render_text(messages, [WEATHER])


@pytest.mark.parametrize("tool_format", FORMATS)
def test_the_mask_marks_what_the_assistant_must_produce(small: Tokenizer, tool_format: ToolFormat) -> None:
    chat = ChatFormat(small, ChatStyle(tool_format=tool_format))
    search = ToolCall("brave_search", {"query": "SF"})
    messages = (
        Message("system", "Be kind."),
        USER,
        Message("assistant", "Let me see.", (search,), end_of_turn=False),
        Message("tool", "25 C"),
        Message("assistant", "It is warm."),
    )
    ids, mask = chat.render_for_training(Conversation(messages, (SEARCH, WEATHER)))
    assert ids == chat.render(messages, [SEARCH, WEATHER], add_generation_prompt=False)
    assert len(mask) == len(ids)
    learnt = small.decode([id for id, learn in zip(ids, mask, strict=True) if learn])
    assert learnt == 'Let me see.<|python_tag|>brave_search.call(query="SF")<|eom_id|>It is warm.<|eot_id|>'


@given(data=st.data())
def test_after_a_prompt_the_answer_is_what_training_showed(small: Tokenizer, data: st.DataObject) -> None:
    messages = data.draw(st.lists(MESSAGES["json"], min_size=1, max_size=4))
    ids, mask = small.chat.render_for_training(Conversation(tuple(messages), (WEATHER,)))
    for number, message in enumerate(messages):
        if message.role == "assistant":
            prompt = small.chat.render(messages[:number], [WEATHER])
            assert ids[: len(prompt)] == prompt
            assert not mask[len(prompt) - 1]
            assert mask[len(prompt)]


HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from(["<|eot_id|>", "<|python_tag|>", "<|start_header_id|>user<|end_header_id|>\n\n", "<|eom_id|>"]),
        st.sampled_from(['{"name": "f", "parameters": {}}', '{"type": "function"', "[f(a=1)]", "[f(", "f(a=1)"]),
        st.sampled_from(
            ['<function=f>{"a": 1}</function>', "<function=f>", 'brave_search.call(query="', '")', "'", '"']
        ),
        st.sampled_from(["Environment: ipython", "\n\n", " ", "\\", "}", "]", "</function>", "; "]),
    ),
    max_size=5,
).map("".join)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=5,
)
NAMES: dict[ToolFormat, st.SearchStrategy[str]] = {
    "json": st.sampled_from(["get_weather", "get-weather", "a b", "brave_search", "żółw", "<function=f>"]),
    "function_tag": st.sampled_from(["get_weather", "get-weather", "brave_search", "żółw", "a.b", '"']),
    "pythonic": st.sampled_from(["get_weather", "brave_search", "żółw", "a.b", "import"]),
}


def calls(tool_format: ToolFormat) -> st.SearchStrategy[ToolCall]:
    return st.one_of(
        st.builds(ToolCall, NAMES[tool_format], st.dictionaries(HOSTILE, VALUES, max_size=3)),
        st.builds(
            ToolCall, st.sampled_from(["brave_search", "wolfram_alpha"]), st.fixed_dictionaries({"query": HOSTILE})
        ),
        st.builds(ToolCall, st.just(CODE_TOOL), st.fixed_dictionaries({"code": HOSTILE})),
    )


def messages(tool_format: ToolFormat) -> st.SearchStrategy[Message]:
    others = st.builds(Message, st.sampled_from(["system", "user", "tool"]), HOSTILE, end_of_turn=st.booleans())
    rows = st.lists(calls(tool_format), max_size=3).map(tuple)
    return others | st.builds(Message, st.just("assistant"), HOSTILE, rows, end_of_turn=st.booleans())


MESSAGES = {tool_format: messages(tool_format) for tool_format in FORMATS}
OFFERS = st.lists(st.sampled_from([SEARCH, CODE, WEATHER, ToolSpec("f")]), unique_by=lambda tool: tool.name, max_size=4)


def holds_a_tag(text: str) -> bool:
    """Whether a whole function tag begins anywhere in the text, or one that the text's end closes."""
    for start in range(len(text)):
        tag = FunctionTag()
        if all(tag.complete or tag.push(char) for char in text[start:]) and tag.call:
            return True
        if tag.complete:
            return True
    return False


def is_ambiguous(message: Message, tools: list[ToolSpec]) -> bool:
    """The exceptions that the parser's three rules make, and no others."""
    for call in message.tool_calls:
        if call.name == CODE_TOOL and is_builtin(call):
            try:
                if parse_tagged(call.arguments["code"]) != (call,):
                    return True
            except ToolCallError:
                return True
    if message.role != "assistant" or not tools:
        return False
    if holds_a_tag(message.content):
        return True
    try:
        found = parse_tool_calls(message.content, [tool.name for tool in tools])
    except ToolCallError:
        return False
    untagged_search = is_builtin(found[0]) and found[0].name not in [tool.name for tool in tools]
    return not message.tool_calls and not untagged_search


@pytest.mark.parametrize("tool_format", FORMATS)
@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])
def test_a_conversation_comes_back(small: Tokenizer, tool_format: ToolFormat, data: st.DataObject) -> None:
    style = ChatStyle(
        tool_format=tool_format,
        tools_in=data.draw(st.sampled_from(["auto", "system", "user"])),
        environment=data.draw(st.sampled_from([None, True, False])),
        today=data.draw(st.sampled_from(["", "1 May 2025"])),
    )
    tools = data.draw(OFFERS)
    conversation = data.draw(st.lists(MESSAGES[tool_format], max_size=4))
    assume(not any(is_ambiguous(message, tools) for message in conversation))
    chat = ChatFormat(small, style)
    ids = chat.render(conversation, tools, add_generation_prompt=data.draw(st.booleans()))
    expected = []
    for message in conversation:
        custom = any(not is_builtin(call) for call in message.tool_calls)
        environment = "Environment: ipython" in chat.render_text([], tools).split("<|eot_id|>")[0].split("\n")
        waits = any(map(is_builtin, message.tool_calls)) or (custom and environment and tool_format == "json")
        expected.append(replace(message, end_of_turn=message.end_of_turn and not waits))
    assert chat.parse(ids, tools) == expected


def test_what_the_format_does_not_carry_comes_back_empty(small: Tokenizer) -> None:
    call = ToolCall("f", {"a": (1, 2)}, id="call-1")
    messages = [Message("assistant", "", (call,)), Message("tool", "3", tool_call_id="call-1", name="f")]
    back = small.chat.parse(small.chat.render(messages))
    assert back == [Message("assistant", "", (ToolCall("f", {"a": [1, 2]}),)), Message("tool", "3")]


def test_parsing_with_an_unfinished_end(small: Tokenizer) -> None:
    ids = small.chat.render([USER, Message("assistant", "It is warm.")], add_generation_prompt=False)
    assert small.chat.parse(ids[:-2]) == [USER, Message("assistant", "It is warm")]
    assert small.chat.parse([*ids, small.pad_id, small.pad_id]) == [USER, Message("assistant", "It is warm.")]
    assert small.chat.parse(small.chat.render([USER])) == [USER]
    assert small.chat.parse([]) == []


def test_a_separator_that_was_encoded_with_its_content_is_found(small: Tokenizer) -> None:
    text = small.chat.render_text(
        [Message("user", "\n\nHi"), Message("assistant", "\nYo")], add_generation_prompt=False
    )
    ids = small.encode(text, allow_special=True)
    assert small.chat.parse(ids) == [Message("user", "\n\nHi"), Message("assistant", "\nYo")]


def test_ids_that_are_no_conversation(small: Tokenizer) -> None:
    hello = small.encode("Hello")
    good = small.chat.render([USER], add_generation_prompt=False)
    for ids in (hello, [small.bos_id, *hello], [*good, *hello], good[:3], [*good, small.start_header_id]):
        with pytest.raises(InputError, match="no conversation"):
            small.chat.parse(ids)
    oracle = [small.start_header_id, *small.encode("oracle"), small.end_header_id, small.eot_id]
    with pytest.raises(InputError, match="'oracle'"):
        small.chat.parse(oracle)


def test_only_the_assistant_calls(small: Tokenizer) -> None:
    with pytest.raises(InputError, match="'user' has tool calls"):
        small.chat.render([Message("user", "", (SF,))])


def test_the_stream_of_an_answer(small: Tokenizer) -> None:
    answer = Message("assistant", tool_calls=(SF,), end_of_turn=False)
    prompt = small.chat.render([USER], [WEATHER])
    ids = small.chat.render([USER, answer], [WEATHER], add_generation_prompt=False)[len(prompt) :]
    parser = small.chat.parser([WEATHER])
    for id in ids:
        parser.feed(id)
    assert parser.finish() == answer
