from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from puna.base.errors import RemoteError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, TextDelta, ToolCallDelta
from puna.core.protocols import ChatModel
from puna.engine.local import LocalModel
from puna.model.checkpoint import Checkpoint
from puna.testing import (
    Answer,
    Asked,
    ScriptedChatModel,
    tiny_checkpoint,
    tiny_config,
    tiny_model,
    tiny_tokenizer,
)

QUESTION = [Message("user", "Hello?")]
CALL = ToolCall("look", {"at": 1})


def test_a_script_fits_the_protocol():
    assert isinstance(ScriptedChatModel([]), ChatModel)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("Yes, I am.", Message("assistant", "Yes, I am.")),
        ("", Message("assistant", "")),
        (["Half a w", "ord"], Message("assistant", "Half a word")),
        (
            Message("assistant", "a\nb", (CALL,), end_of_turn=False),
            Message("assistant", "a\nb", (CALL,), end_of_turn=False),
        ),
        (Completion(Message("assistant", "cut"), stop_reason="length"), Message("assistant", "cut")),
    ],
)
def test_an_answer_is_the_same_whole_and_in_pieces(answer: Answer, message: Message):
    model = ScriptedChatModel([answer] * 3)
    whole = model.chat(QUESTION)
    *pieces, done = model.stream(QUESTION)
    assert done == Done(whole)
    assert whole.message == message
    assert "".join(piece.text for piece in pieces if isinstance(piece, TextDelta)) == message.content
    assert tuple(piece.call for piece in pieces if isinstance(piece, ToolCallDelta)) == message.tool_calls
    assert model.chat_batch([QUESTION]) == [whole]
    if isinstance(answer, Completion):
        assert whole is answer


def test_text_comes_in_words_unless_the_script_cuts_it():
    model = ScriptedChatModel([" One two\n three", ["One t", "wo"]])
    assert [e.text for e in model.stream(QUESTION) if isinstance(e, TextDelta)] == [" One ", "two\n ", "three"]
    assert [e.text for e in model.stream(QUESTION) if isinstance(e, TextDelta)] == ["One t", "wo"]


def test_answers_come_in_order_and_every_request_is_noted():
    model, params, tools = ScriptedChatModel(["a", "b", "c"]), SamplingParams(seed=1), [ToolSpec("look")]
    assert model.chat(QUESTION, params, tools).message.content == "a"
    other = [*QUESTION, Message("assistant", "a"), Message("user", "b?")]
    assert [c.message.content for c in model.chat_batch([QUESTION, other], params)] == ["b", "c"]
    asked = [
        Asked(tuple(QUESTION), params, tuple(tools)),
        Asked(tuple(QUESTION), params, ()),
        Asked(tuple(other), params, ()),
    ]
    assert model.asked == asked


def test_what_is_noted_does_not_change_with_the_callers_list():
    model, messages = ScriptedChatModel(["a"]), list(QUESTION)
    model.chat(messages)
    messages.append(Message("user", "more"))
    assert model.asked[0].messages == tuple(QUESTION)


def test_a_function_answers_what_it_is_asked():
    def shout(messages: Sequence[Message]) -> Answer:
        return messages[-1].content.upper()

    model = ScriptedChatModel(shout)
    assert [model.chat([Message("user", text)]).message.content for text in "ab"] == ["A", "B"]
    assert len(model.asked) == 2


def test_an_exception_is_raised_in_its_turn():
    model = ScriptedChatModel([RemoteError("gone"), ["Half ", KeyboardInterrupt()], "Back."])
    with pytest.raises(RemoteError):
        model.chat(QUESTION)
    stream = model.stream(QUESTION)
    assert next(stream) == TextDelta("Half ")
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert model.chat(QUESTION).message.content == "Back."


def test_a_script_that_has_ended_fails_the_test():
    model = ScriptedChatModel(["a"])
    model.chat(QUESTION)
    with pytest.raises(AssertionError, match="has 1 answers, and 2 are asked for"):
        model.chat(QUESTION)


@pytest.mark.parametrize("text", ["", "abc", "Żółw 🐢\n\0", "<|eot_id|>"])
def test_the_tiny_tokenizers_ids_are_bytes(text: str):
    tokenizer = tiny_tokenizer()
    assert tokenizer.encode(text) == list(text.encode())
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer is tiny_tokenizer()


def test_the_tiny_tokenizer_knows_the_chat_format():
    tokenizer = tiny_tokenizer()
    messages = [Message("system", "Be brief."), Message("user", "é?"), Message("assistant", "Yes.")]
    assert tokenizer.chat.parse(tokenizer.chat.render(messages, add_generation_prompt=False)) == messages


def test_a_tiny_model_is_its_seeds_and_takes_changes_of_its_shape():
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        first, same, other = (tiny_model(seed)(ids) for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)
    changed = tiny_model(num_hidden_layers=1, hidden_size=16, tie_word_embeddings=True)
    assert (len(changed.layers), changed.config.head_dim) == (1, 4)
    assert changed.config == tiny_config(num_hidden_layers=1, hidden_size=16, tie_word_embeddings=True)


def test_every_weight_of_a_tiny_model_matters():
    model = tiny_model().train()
    assert all(float(parameter.detach().std()) > 0 for parameter in model.parameters())
    ids = torch.arange(model.config.vocab_size)[None]
    model(ids).square().mean().backward()
    assert all(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tiny_checkpoint_is_a_model_with_its_tokenizer(tmp_path: Path, dtype: torch.dtype):
    folder = tiny_checkpoint(tmp_path / "model", seed=3, dtype=str(dtype).removeprefix("torch."))
    checkpoint = Checkpoint.load(folder)
    assert checkpoint.tokenizer == tiny_tokenizer()
    assert {weight.dtype for weight in checkpoint.weights.values()} == {dtype}
    for name, parameter in tiny_model(3).named_parameters():
        assert torch.equal(checkpoint.weights[name], parameter.to(dtype))
    assert LocalModel.load(folder).chat("Hi", SamplingParams(max_tokens=3)).ids
