"""A model on this machine, as everyone meets it: `puna.load(path)` gives a `LocalModel`.

It is a `ChatModel` and a `LanguageModel` (core/protocols): agents, evaluation and apps talk to it as they would to a
server elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from puna.base.device import resolve_device
from puna.base.errors import CheckpointError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import (
    Completion,
    Done,
    SamplingParams,
    StopReason,
    StreamEvent,
    Usage,
)
from puna.engine.answer import Answer, Continuation, Reader
from puna.engine.generator import Generator, Row
from puna.model import heads
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.tokenizer import Tokenizer

Prompt = str | Sequence[int]
Messages = str | Sequence[Message | Mapping[str, Any]]
_BATCH_ROWS = 32


class LocalModel:
    """A transformer with its tokenizer.

    Args:
        model: the network, moved to eval mode.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        stops: dict[int, StopReason] = dict.fromkeys(tokenizer.stop_ids, "end_of_turn")
        stops[tokenizer.eom_id] = "end_of_message"
        self._generator = Generator(model, stops, tokenizer.vocab_size)

    @classmethod
    def load(
        cls, path: Path | str, dtype: str = "float32", device: str = "auto", *, allow_pickle: bool = False
    ) -> LocalModel:
        """Reads a checkpoint folder (Hugging Face's or Meta's layout) with its tokenizer.

        Args:
            path: the folder.
            dtype: of weights and computation: float32, bfloat16, float16 or float64.
            device: "auto", "cpu", "cuda", "cuda:1", ...
            allow_pickle: whether Meta's `.pth` files may be read (in a child process, weights only).
        """
        checkpoint = Checkpoint.load(path, allow_pickle=allow_pickle)
        if checkpoint.tokenizer is None:
            raise CheckpointError(
                f"The checkpoint {path} has no tokenizer.", hint="Put its tokenizer.model or tokenizer.json beside it."
            )
        return cls(checkpoint.model(dtype=dtype, device=str(resolve_device(device))), checkpoint.tokenizer)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @torch.inference_mode()
    def logits(self, ids_BT: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """(B, T) int64 ids to (B, T, V) float32 logits."""
        return self.model(torch.as_tensor(ids_BT, dtype=torch.int64, device=self.device))

    @torch.inference_mode()
    def token_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence, the natural-log probability of each token after the first, given those before it."""
        results: list[list[float]] = [[] for _ in sequences]
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        for start in range(0, len(order), _BATCH_ROWS):
            group = order[start : start + _BATCH_ROWS]
            counts = [max(0, len(sequences[i]) - 1) for i in group]
            longest = max(1, *counts)
            ids_BT = torch.zeros((len(group), longest), dtype=torch.int64)
            targets_BT = torch.full((len(group), longest), -1, dtype=torch.int64)
            for b, (i, count) in enumerate(zip(group, counts, strict=True)):
                sequence = torch.as_tensor(sequences[i], dtype=torch.int64)
                ids_BT[b, :count], targets_BT[b, :count] = sequence[:-1], sequence[1:]
            targets_BT = targets_BT.to(self.device)
            logprobs_BT = self.model(
                ids_BT.to(self.device), head=lambda h, w, targets=targets_BT: heads.token_logprobs(h, w, targets)
            )
            for i, count, logprobs_T in zip(group, counts, logprobs_BT, strict=True):
                results[i] = logprobs_T[:count].tolist()
        return results

    @overload
    def generate(self, prompts: Prompt, params: SamplingParams | None = None) -> Completion: ...
    @overload
    def generate(
        self, prompts: list[str] | list[list[int]], params: SamplingParams | None = None
    ) -> list[Completion]: ...
    def generate(
        self, prompts: Prompt | list[str] | list[list[int]], params: SamplingParams | None = None
    ) -> Completion | list[Completion]:
        """Continues text (a start token is put before it) or token ids (taken as they are); one prompt or many."""
        one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        many: Sequence[Prompt] = [prompts] if one else prompts  # type: ignore[list-item, assignment]
        ids = [self.tokenizer.encode(p, bos=True) if isinstance(p, str) else list(p) for p in many]
        completions = self._complete(ids, params or SamplingParams(), lambda: Continuation(self.tokenizer))
        return completions[0] if one else completions

    def chat(
        self, messages: Messages, params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Completion:
        """Answers a conversation: a string (one user turn), messages, or dictionaries in OpenAI's shape."""
        for event in self.stream(messages, params, tools):
            if isinstance(event, Done):
                return event.completion
        raise AssertionError("a stream ends with Done")

    def chat_batch(self, conversations: Sequence[Messages], params: SamplingParams | None = None) -> list[Completion]:
        """Answers many conversations, in their order."""
        ids = [self.tokenizer.chat.render(as_messages(messages)) for messages in conversations]
        return self._complete(ids, params or SamplingParams(), self.tokenizer.chat.parser)

    def stream(
        self, messages: Messages, params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Iterator[StreamEvent]:
        """Answers a conversation piece by piece; the last event is `Done` with the whole answer."""
        params = params or SamplingParams()
        chat = self.tokenizer.chat
        rows = self._generator.rows([chat.render(as_messages(messages), tools)], params)
        answer = Answer(chat.parser(tools), params.stop)
        clock = _Clock()
        for (row,) in self._generator.run(rows):
            clock.tick()
            yield from answer.take(row.ids[-1])
            if answer.stopped:
                row.stop_reason = "stop"
        yield from answer.close()
        yield Done(self._completion(rows[0], answer, clock))

    def _complete(
        self, prompts: Sequence[list[int]], params: SamplingParams, reader: Callable[[], Reader]
    ) -> list[Completion]:
        """Completes prompts in groups of like length."""
        completions: dict[int, Completion] = {}
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), _BATCH_ROWS):
            group = order[start : start + _BATCH_ROWS]
            rows = self._generator.rows([prompts[i] for i in group], params)
            answers = [Answer(reader(), params.stop) for _ in rows]
            clock = _Clock()
            for running in self._generator.run(rows):
                clock.tick()
                for row in running:
                    answers[row.index].take(row.ids[-1])
                    if answers[row.index].stopped:
                        row.stop_reason = "stop"
            for i, row in zip(group, rows, strict=True):
                answers[row.index].close()
                completions[i] = self._completion(row, answers[row.index], clock)
        return [completions[i] for i in range(len(prompts))]

    def _completion(self, row: Row, answer: Answer, clock: _Clock) -> Completion:
        usage = Usage(len(row.prompt), len(row.ids), clock.first, clock.rest)
        # A stop string may come to light only when the answer is closed.
        reason = "stop" if answer.stopped else row.stop_reason
        assert reason is not None
        return Completion(answer.message(), usage, reason, tuple(row.ids), tuple(row.logprobs))


class _Clock:
    """Seconds to the first token, and from it to the last."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.first = self.rest = 0.0

    def tick(self) -> None:
        now = time.perf_counter() - self.started
        if self.first == 0.0:
            self.first = now
        self.rest = now - self.first


def as_messages(messages: Messages) -> list[Message]:
    """A string as one user turn; dictionaries in OpenAI's shape as `Message`s."""
    if isinstance(messages, str):
        return [Message("user", messages)]
    return [m if isinstance(m, Message) else Message.from_json(m) for m in messages]
