from __future__ import annotations

import numpy as np
import pytest

from puna.align.rendering import render_answer
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.testing import tiny_tokenizer

ASK = Message("user", "Hi")


def counted(*answer: Message, mask: str = "content", tools: tuple[ToolSpec, ...] = ()) -> list[str]:
    """The tokens that count, by name or character."""
    tokenizer = tiny_tokenizer()
    ids, keep = render_answer(tokenizer, [ASK], answer, tools, mask)  # pyright: ignore[reportArgumentType]
    return [tokenizer.decode([int(i)]) if i < 256 else tokenizer.special_name(int(i)) for i in ids[keep]]


def test_every_token_of_a_rendered_pair_is_masked_as_the_paper_says() -> None:
    tokenizer = tiny_tokenizer()
    ids, content = render_answer(tokenizer, [ASK], [Message("assistant", "Ha\n\n!")])
    _, answer = render_answer(tokenizer, [ASK], [Message("assistant", "Ha\n\n!")], mask="answer")
    shown = [tokenizer.decode([int(i)]) if i < 256 else tokenizer.special_name(int(i)) for i in ids]
    header = ["<|start_header_id|>", *"user", "<|end_header_id|>", *"\n\n"]
    expected = [("<|begin_of_text|>", False, False), *((token, False, False) for token in (*header, *"Hi"))]
    expected += [("<|eot_id|>", False, False)]
    header[1:5] = "assistant"
    expected += [(token, False, False) for token in header]
    expected += [(token, True, True) for token in "Ha\n\n!"] + [("<|eot_id|>", False, True)]
    assert list(zip(shown, content.tolist(), answer.tolist(), strict=True)) == expected


def test_the_blank_line_of_a_header_does_not_count_and_that_of_an_answer_does() -> None:
    assert counted(Message("assistant", "\n\na")) == ["\n", "\n", "a"]


def test_only_the_answer_counts_and_not_the_assistant_of_the_prompt() -> None:
    prompt = [ASK, Message("assistant", "before"), Message("user", "Go on")]
    ids, keep = render_answer(tiny_tokenizer(), prompt, [Message("assistant", "after")])
    assert tiny_tokenizer().decode(ids[keep].tolist()) == "after"


def test_calls_count_and_the_results_of_tools_do_not() -> None:
    tool = ToolSpec("add", parameters={"type": "object", "properties": {"a": {"type": "integer"}}})
    call = Message("assistant", tool_calls=(ToolCall("add", {"a": 2}),), end_of_turn=False)
    answer = (call, Message("tool", "SECRET"), Message("assistant", "done"))
    content, whole = (counted(*answer, mask=mask, tools=(tool,)) for mask in ("content", "answer"))
    assert "SECRET" not in "".join(content)
    assert '"add"' in "".join(content)
    assert "".join(content).endswith("done")
    assert not {"<|eom_id|>", "<|eot_id|>", "<|start_header_id|>"} & set(content)
    assert {"<|eom_id|>", "<|eot_id|>"} <= set(whole)


def test_a_user_who_writes_the_end_of_a_turn_ends_none() -> None:
    assert "".join(counted(Message("assistant", "<|eot_id|>"))) == "<|eot_id|>"
    assert len(counted(Message("assistant", "<|eot_id|>"))) == 10


@pytest.mark.parametrize("mask", ["content", "answer"])
def test_masks_of_both_answers_begin_after_the_same_prompt(mask: str) -> None:
    a, b = (
        render_answer(tiny_tokenizer(), [ASK], [Message("assistant", text)], mask=mask)  # pyright: ignore
        for text in ("yes", "no, never")
    )
    first = int(np.flatnonzero(a[1])[0])
    assert first == int(np.flatnonzero(b[1])[0])
    assert (a[0][:first] == b[0][:first]).all()
