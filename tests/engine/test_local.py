from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from puna.base.errors import CheckpointError, ConfigError, InputError, ResourceError
from puna.core.chat import Message, ToolCall, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent, TextDelta, ToolCallDelta
from puna.core.protocols import ChatModel, LanguageModel
from puna.engine.config import EngineConfig
from puna.engine.local import LocalModel
from puna.model.checkpoint import Checkpoint
from puna.model.transformer import Transformer
from puna.testing import tiny_checkpoint, tiny_config, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
GREEDY = SamplingParams(temperature=0, max_tokens=12)
SAMPLED = SamplingParams(temperature=1.5, top_p=1.0, max_tokens=40, seed=1)
CONVERSATION = [Message("system", "Be brief."), Message("user", "What is é?")]
LOOK = ToolSpec("look")


class Reciting(Transformer):
    """Generates the given ids, one after the other, whatever the prompt."""

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__(tiny_config(tie_word_embeddings=True))
        self.coming = list(ids)
        self.lm_head = nn.Identity()

    def forward(self, ids_BT: Tensor, *rest: Any, head: Callable[[Tensor, Any], Tensor], **more: Any) -> Tensor:
        """As hidden states, which the output matrix leaves as they are, the next id's logits."""
        coming_BT = torch.full_like(ids_BT, self.coming.pop(0))
        return head(nn.functional.one_hot(coming_BT, self.config.vocab_size).float(), None)


def reciting(text: str, last: int = TOKENIZER.eot_id, first: tuple[int, ...] = ()) -> LocalModel:
    return LocalModel(Reciting([*first, *text.encode(), last]), TOKENIZER)


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return LocalModel(tiny_model(2), TOKENIZER)


def same(found: Completion, expected: Completion) -> bool:
    """Equal but for the seconds, and for what of the prompt was in the cache already."""
    found, expected = (
        replace(c, usage=replace(c.usage, prefill_seconds=0, decode_seconds=0, cached_tokens=0))
        for c in (found, expected)
    )
    return found == expected


def test_it_is_a_chat_model_and_a_language_model(model: LocalModel):
    assert isinstance(model, ChatModel)
    assert isinstance(model, LanguageModel)


# Continuing --------------------------------------------------------------------------------------------------------


def test_text_is_continued_after_a_start_token_and_ids_are_taken_as_they_are(model: LocalModel):
    ids = TOKENIZER.encode("Hello", bos=True)
    assert same(model.generate("Hello", GREEDY), model.generate(ids, GREEDY))
    assert not same(model.generate("Hello", GREEDY), model.generate(ids[1:], GREEDY))
    assert model.generate("", GREEDY).usage.prompt_tokens == 1


def test_many_prompts_give_many_completions_in_their_order(model: LocalModel):
    texts = ["a long prompt before a short one", "", "b", "and another"] * 12  # more than one batch
    alone = [model.generate(text, GREEDY) for text in texts[:4]] * 12
    together = model.generate(texts, GREEDY)
    assert [c.ids for c in together] == [c.ids for c in alone]
    assert [c.message for c in together] == [c.message for c in alone]
    ids = [TOKENIZER.encode(text, bos=True) for text in texts]
    assert [c.ids for c in model.generate(ids, GREEDY)] == [c.ids for c in alone]


def test_no_prompts_give_no_completions(model: LocalModel):
    assert model.generate([], GREEDY) == []
    assert model.chat_batch([], GREEDY) == []


def test_a_completion_says_what_it_took_and_what_was_said(model: LocalModel):
    completion = model.generate("Hello", replace(GREEDY, logprobs=0))
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (6, len(completion.ids))
    assert completion.usage.prefill_seconds > 0
    assert completion.message.content == TOKENIZER.decode(completion.ids, skip_special=True)
    assert [p.id for p in completion.logprobs] == list(completion.ids)
    assert (completion.stop_reason, completion.cost) == ("length", 0)


@pytest.mark.parametrize(
    ("last", "reason"),
    [(TOKENIZER.eot_id, "end_of_turn"), (TOKENIZER.eos_id, "end_of_turn"), (TOKENIZER.eom_id, "end_of_message")],
)
def test_it_stops_at_the_tokens_that_end_an_answer(last: int, reason: str):
    completion = reciting("Yes", last).generate("?", GREEDY)
    assert (completion.message.content, completion.stop_reason) == ("Yes", reason)
    assert completion.ids == (*b"Yes", last)


def test_it_stops_at_a_stop_string_and_asks_for_no_token_more():
    model = reciting("One.\n\nTwo.")
    completion = model.generate("?", replace(GREEDY, stop=("\n\n", "Two")))
    assert (completion.message.content, completion.stop_reason) == ("One.", "stop")
    assert bytes(completion.ids) == b"One.\n\n"
    assert completion.usage.completion_tokens == 6


def test_a_stop_string_in_the_last_token_is_a_stop_and_no_cut():
    completion = reciting("One.").generate("?", SamplingParams(temperature=0, max_tokens=4, stop=(".",)))
    assert (completion.message.content, completion.stop_reason) == ("One", "stop")


def test_text_that_only_may_begin_a_stop_string_is_kept():
    completion = reciting("One.\n").generate("?", replace(GREEDY, stop=("\n\n",)))
    assert (completion.message.content, completion.stop_reason) == ("One.\n", "end_of_turn")


def test_ids_that_the_tokenizer_lacks_are_not_generated():
    wide = LocalModel(tiny_model(vocab_size=400), TOKENIZER)
    params = replace(SAMPLED, temperature=100.0)
    completions = [wide.generate("x", replace(params, seed=seed)) for seed in range(5)]
    assert all(token < TOKENIZER.vocab_size for completion in completions for token in completion.ids)


def test_a_prompt_that_is_too_long_is_refused():
    model = LocalModel(tiny_model(max_position_embeddings=256), TOKENIZER)
    with pytest.raises(InputError, match="has 301 tokens; the model's context holds 256"):
        model.generate("x" * 300)
    with pytest.raises(InputError, match="context holds 256"):
        model.chat("x" * 300)


# Chatting ----------------------------------------------------------------------------------------------------------


def test_a_conversation_may_be_text_messages_or_dictionaries(model: LocalModel):
    expected = model.chat([Message("user", "Hi")], GREEDY)
    assert same(model.chat("Hi", GREEDY), expected)
    assert same(model.chat([{"role": "user", "content": "Hi"}], GREEDY), expected)
    assert same(model.chat_batch(["Hi"], GREEDY)[0], expected)
    assert expected.usage.prompt_tokens == len(TOKENIZER.chat.render([Message("user", "Hi")]))
    with pytest.raises(InputError, match="role 'robot'"):
        model.chat([{"role": "robot", "content": "Hi"}])


@pytest.mark.parametrize("params", [GREEDY, SAMPLED, replace(SAMPLED, stop=("a", "é"), logprobs=2)])
def test_a_batch_of_conversations_is_each_of_them_alone(model: LocalModel, params: SamplingParams):
    conversations = [[*CONVERSATION[: 1 + i % 2], Message("user", "x" * (7 * i % 50))] for i in range(35)]
    for found, messages in zip(model.chat_batch(conversations, params), conversations, strict=True):
        alone = model.chat(messages, params)
        assert same(replace(found, logprobs=()), replace(alone, logprobs=()))
        assert [p.logprob for p in found.logprobs] == pytest.approx([p.logprob for p in alone.logprobs], abs=1e-5)


@pytest.mark.parametrize("stop", [(), ("0", "\n", "e"), ("never so long a text",)])
@pytest.mark.parametrize("tools", [(), (LOOK,)])
def test_the_pieces_of_a_stream_make_its_message(model: LocalModel, stop: tuple[str, ...], tools: tuple[ToolSpec, ...]):
    for seed in range(6):
        params = replace(SAMPLED, seed=seed, stop=stop)
        *events, done = model.stream(CONVERSATION, params, tools)
        assert isinstance(done, Done)
        assert all(isinstance(event, (TextDelta, ToolCallDelta)) for event in events)
        message = done.completion.message
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == message.content
        assert tuple(event.call for event in events if isinstance(event, ToolCallDelta)) == message.tool_calls
        assert not any(string in message.content for string in stop)
        assert same(done.completion, model.chat(CONVERSATION, params, tools))


def test_a_streams_text_comes_while_the_model_speaks():
    model = reciting("One two")
    stream = model.stream("?", GREEDY)
    assert [next(stream) for _ in range(3)] == [TextDelta("O"), TextDelta("n"), TextDelta("e")]
    assert isinstance(model.model, Reciting)
    assert len(model.model.coming) == 5


def test_tool_calls_come_out_of_a_stream_and_stand_in_the_message():
    model = reciting('{"name": "look", "parameters": {"at": "é"}}')
    events: list[StreamEvent] = list(model.stream("?", replace(GREEDY, max_tokens=100), [LOOK]))
    call = ToolCall("look", {"at": "é"})
    assert events[:-1] == [ToolCallDelta(call)]
    assert isinstance(events[-1], Done)
    assert events[-1].completion.message == Message("assistant", "", (call,))


def test_a_turn_that_waits_for_a_tool_ends_a_message():
    model = reciting("print(1)", TOKENIZER.eom_id, (TOKENIZER.python_tag_id,))
    completion = model.chat("?", GREEDY)
    call = ToolCall("code_interpreter", {"code": "print(1)"})
    assert completion.message == Message("assistant", "", (call,), end_of_turn=False)
    assert completion.stop_reason == "end_of_message"


def test_a_stop_string_in_text_that_was_held_back_is_a_stop():
    """What may be a tool call is held back to the end; then it turns out to be text."""
    said = '{"name": "END'
    params = SamplingParams(temperature=0, max_tokens=len(said), stop=("END",))
    completion = reciting(said).chat("?", params, [LOOK])
    assert (completion.message.content, completion.stop_reason) == ('{"name": "', "stop")


def test_a_stream_may_be_left(model: LocalModel):
    stream = model.stream(CONVERSATION, SAMPLED)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert same(model.chat(CONVERSATION, GREEDY), model.chat(CONVERSATION, GREEDY))


# The engine behind it ----------------------------------------------------------------------------------------------


def test_several_answers_come_as_one_completion_with_the_others_in_it(model: LocalModel):
    params = replace(SAMPLED, n=3, max_tokens=10)
    alone = [model.chat("Hi", replace(params, n=1, seed=SAMPLED.seed + i)) for i in range(3)]  # type: ignore[operator]
    *_, done = model.stream("Hi", params)
    assert isinstance(done, Done)
    batch = model.chat_batch(["Hi", "Ho"], params)
    for found in (model.chat("Hi", params), done.completion, batch[0]):
        assert same(replace(found, others=()), alone[0])
        assert all(same(one, other) for one, other in zip(found.others, alone[1:], strict=True))
    assert len(batch[1].others) == 2
    ids = TOKENIZER.chat.render([Message("user", "Hi")])
    assert [c.ids for c in model.generate([ids, ids], params)] == [alone[0].ids] * 2


def test_the_second_turn_reads_the_first_from_the_cache():
    model = LocalModel(tiny_model(2), TOKENIZER)
    first = model.chat(CONVERSATION, replace(GREEDY, logprobs=None))
    assert first.usage.cached_tokens == 0
    turns = [*CONVERSATION, first.message, Message("user", "And then?")]
    second = model.chat(turns, GREEDY)
    assert 0 < second.usage.cached_tokens < second.usage.prompt_tokens
    assert second.usage.cached_tokens >= first.usage.prompt_tokens // 32 * 32
    assert same(second, LocalModel(tiny_model(2), TOKENIZER).chat(turns, GREEDY))


def test_a_prompts_own_logprobs_stand_in_the_completion(model: LocalModel):
    ids = TOKENIZER.encode("Hello", bos=True)
    completion = model.generate("Hello", replace(GREEDY, prompt_logprobs=True))
    assert completion.prompt_logprobs == pytest.approx(model.token_logprobs([ids])[0], abs=1e-4)


def test_guesses_change_nothing_but_the_steps(model: LocalModel):
    for params in (GREEDY, SAMPLED, replace(SAMPLED, stop=("a", "é"))):
        expected = model.chat(CONVERSATION, params)
        for config, draft in ((EngineConfig(draft="ngram"), None), (None, tiny_model(3)), (None, tiny_model(2))):
            guessing = LocalModel(tiny_model(2), TOKENIZER, config, draft)
            assert same(guessing.chat(CONVERSATION, params), expected)


def test_threads_share_the_engine_and_each_gets_its_own_answer(model: LocalModel):
    questions = [f"{i} " * (1 + 9 * i % 40) for i in range(8)]
    expected = [model.chat(question, SAMPLED).message for question in questions]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = list(pool.map(lambda question: model.chat(question, SAMPLED), questions))
            assert [completion.message for completion in found] == expected
    assert model.engine.pool.free == model.engine.pool.count


def test_a_bad_request_among_many_leaves_nothing_behind(model: LocalModel):
    with pytest.raises(InputError, match="context holds"):
        model.generate(["fine", "x" * 5000, "fine too"], GREEDY)
    with pytest.raises(InputError, match="tool_choice is 'look'"):
        model.chat("Hi", replace(GREEDY, tool_choice="look"))
    assert not model.engine.busy
    assert model.engine.pool.free == model.engine.pool.count


def test_after_an_interruption_the_model_answers_as_before(model: LocalModel):
    class Impatient(Transformer):
        def forward(self, *args: Any, **more: Any) -> Any:
            if self.patience == 0:
                self.patience = -1
                raise KeyboardInterrupt
            self.patience -= 1
            return super().forward(*args, **more)

    impatient = Impatient(tiny_config())
    impatient.load_state_dict(tiny_model(2).state_dict())
    interrupted = LocalModel(impatient, TOKENIZER)
    for patience in (0, 1, 5):
        impatient.patience = patience
        with pytest.raises(KeyboardInterrupt):
            interrupted.chat(CONVERSATION, GREEDY)
        assert not interrupted.engine.busy
        assert interrupted.engine.pool.free == interrupted.engine.pool.count
        assert same(interrupted.chat(CONVERSATION, GREEDY), model.chat(CONVERSATION, GREEDY))


def test_what_a_request_fails_with_is_raised_where_it_is_waited_for(model: LocalModel):
    broken = tiny_model(2)
    with torch.no_grad():
        broken.embed_tokens.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not numbers"):
        LocalModel(broken, TOKENIZER).chat("Hi", GREEDY)


def test_a_budget_too_small_is_refused_where_the_model_is_loaded(tmp_path: Path):
    folder = tiny_checkpoint(tmp_path / "model")
    with pytest.raises(ResourceError, match=r"holds 96 tokens; a sequence of 2,048 needs") as caught:
        LocalModel.load(folder, device="cpu", config=EngineConfig(cache_bytes=25_000))
    assert "max_context to 96" in caught.value.hint
    small = LocalModel.load(folder, device="cpu", config=EngineConfig(cache_bytes=25_000, max_context=96))
    assert small.engine.max_context == 96
    small.engine.stop_ids = {}
    assert len(small.generate("x", replace(GREEDY, max_tokens=1000)).ids) == 94


# Likelihoods -------------------------------------------------------------------------------------------------------


def test_token_logprobs_are_the_log_softmax_of_the_logits(model: LocalModel):
    generator = torch.Generator().manual_seed(0)
    lengths = [0, 1, 2, 200, 3, *range(40, 5, -1)]  # more than one batch, and not in order
    sequences = [torch.randint(0, 270, (n,), generator=generator).tolist() for n in lengths]
    found = model.token_logprobs(sequences)
    assert [len(logprobs) for logprobs in found] == [max(0, n - 1) for n in lengths]
    for sequence, logprobs in zip(sequences, found, strict=True):
        if len(sequence) > 1:
            expected = model.logits([sequence]).double().log_softmax(-1)[0, :-1]
            expected = expected.gather(1, torch.tensor(sequence[1:])[:, None]).squeeze(1)
            assert logprobs == pytest.approx(expected.tolist(), abs=1e-5)
    assert model.token_logprobs([]) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_logits_are_float32_whatever_the_weights_are(tmp_path: Path, model: LocalModel, dtype: str):
    loaded = LocalModel.load(tiny_checkpoint(tmp_path / "model", seed=2), dtype=dtype, device="cpu")
    assert {str(p.dtype) for p in loaded.model.parameters()} == {f"torch.{dtype}"}
    ids = [[1, 2, 3], [4, 5, 6]]
    logits_BTV = loaded.logits(ids)
    assert (logits_BTV.shape, logits_BTV.dtype) == ((2, 3, TOKENIZER.vocab_size), torch.float32)
    expected = model.logits(torch.tensor(ids))
    limit = 0.05 if dtype == "bfloat16" else 1e-5
    assert float((logits_BTV - expected).norm() / expected.norm()) < limit
    assert len(loaded.generate("x", replace(GREEDY, max_tokens=3)).ids) == 3


def test_nothing_keeps_a_gradient(model: LocalModel):
    assert not model.logits([[1, 2]]).requires_grad
    assert not model.model.training


# Loading -----------------------------------------------------------------------------------------------------------


def test_a_loaded_model_speaks_as_the_saved_one(tmp_path: Path, model: LocalModel):
    loaded = LocalModel.load(tiny_checkpoint(tmp_path / "model", seed=2), device="cpu")
    assert loaded.config == model.config
    assert loaded.device == torch.device("cpu")
    assert same(loaded.chat(CONVERSATION, GREEDY), model.chat(CONVERSATION, GREEDY))


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path):
    Checkpoint.of(tiny_model()).save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="has no tokenizer") as caught:
        LocalModel.load(tmp_path / "model")
    assert "tokenizer.json" in caught.value.hint


def test_a_missing_folder_an_empty_one_and_an_unknown_dtype_are_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="There is no folder"):
        LocalModel.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        LocalModel.load(tmp_path)
    with pytest.raises(ConfigError, match="int8"):
        LocalModel.load(tiny_checkpoint(tmp_path / "model"), dtype="int8")
    with pytest.raises(ConfigError, match="device is 'abacus'"):
        LocalModel.load(tmp_path / "model", device="abacus")
