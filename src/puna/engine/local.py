"""A model on this machine, as everyone meets it: `puna.load(path)` gives a `LocalModel`.

It is a `ChatModel`, a `LanguageModel` and an `Embedder` (core/protocols): agents, evaluation and apps talk to it as
they would to a server elsewhere. Any number of threads may call it: each waits for its own answer, and whoever waits
steps the engine for all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from puna.base.device import resolve_device
from puna.base.errors import CheckpointError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, StopReason, StreamEvent, Usage
from puna.engine.answer import Answer, Continuation, Event, Reader
from puna.engine.config import EngineConfig
from puna.engine.engine import Engine
from puna.engine.grammar import Grammars, Matcher
from puna.engine.prepare import prepare
from puna.engine.scoring import Scorer
from puna.engine.sequence import Request
from puna.engine.sequence import Sequence as Generation
from puna.model.checkpoint import Checkpoint
from puna.model.config import ModelConfig
from puna.model.transformer import Transformer
from puna.tokenizer import Tokenizer

Prompt = str | Sequence[int]
Messages = str | Sequence[Message | Mapping[str, Any]]


class LocalModel:
    """A transformer with its tokenizer.

    Args:
        model: the network, moved to eval mode.
        tokenizer: its tokenizer.
        config: the engine's limits.
        draft: a smaller model with the same tokenizer, which guesses ahead.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        draft: Transformer | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        stops: dict[int, StopReason] = dict.fromkeys(tokenizer.stop_ids, "end_of_turn")
        stops[tokenizer.eom_id] = "end_of_message"
        self.engine = Engine(self.model, stops, tokenizer.vocab_size, config, draft.eval() if draft else None)
        self.scorer = Scorer(self.model)

    @classmethod
    def load(
        cls,
        path: Path | str,
        dtype: str = "float32",
        device: str = "auto",
        *,
        allow_pickle: bool = False,
        config: EngineConfig | None = None,
    ) -> LocalModel:
        """Reads a checkpoint folder (Hugging Face's or Meta's layout) with its tokenizer.

        Args:
            path: the folder.
            dtype: of weights and computation: float32, bfloat16, float16 or float64.
            device: "auto", "cpu", "cuda", "cuda:1", ...
            allow_pickle: whether Meta's `.pth` files may be read (in a child process, weights only).
            config: the engine's limits.
        """
        return cls.of(Checkpoint.load(path, allow_pickle=allow_pickle), path, dtype, device, config=config)

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, path: Path | str, dtype: str, device: str, *, config: EngineConfig | None = None
    ) -> LocalModel:
        """The model of an open checkpoint; `path` is named where it has no tokenizer."""
        if checkpoint.tokenizer is None:
            raise _no_tokenizer(path)
        model = checkpoint.model(dtype=dtype, device=str(resolve_device(device)))
        return cls(prepare(model), checkpoint.tokenizer, config)

    @classmethod
    def of_model(
        cls, model: Transformer, folder: Path, device: str, *, config: EngineConfig | None = None
    ) -> LocalModel:
        """A network that has its weights already, with the tokenizer of a folder."""
        if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
            raise _no_tokenizer(folder)
        return cls(prepare(model.to(resolve_device(device))), Tokenizer.load(folder), config)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @cached_property
    def grammars(self) -> Grammars:
        return Grammars(self.tokenizer)

    @torch.inference_mode()
    def logits(self, ids_BT: Tensor | Sequence[Sequence[int]]) -> Tensor:
        """(B, T) int64 ids to (B, T, V) float32 logits."""
        return self.scorer.logits(torch.as_tensor(ids_BT, dtype=torch.int64, device=self.device))

    def token_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """For each sequence, the natural-log probability of each token after the first, given those before it."""
        return self.scorer.token_logprobs(sequences)

    def loglikelihoods(self, prompt: str, continuations: Sequence[str]) -> list[float]:
        """The natural-log probability of each continuation of a text."""
        before = self.tokenizer.encode(prompt, bos=True)
        rows = [[*before, *self.tokenizer.encode(text)] for text in continuations]
        return [sum(logprobs[len(before) - 1 :]) for logprobs in self.token_logprobs(rows)]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """The mean of each text's last hidden states, of length 1."""
        return self.scorer.embed([self.tokenizer.encode(text, bos=True) for text in texts])

    @overload
    def generate(self, prompts: Prompt, params: SamplingParams | None = None, adapter: str = "") -> Completion: ...
    @overload
    def generate(
        self, prompts: list[str] | list[list[int]], params: SamplingParams | None = None, adapter: str = ""
    ) -> list[Completion]: ...
    def generate(
        self, prompts: Prompt | list[str] | list[list[int]], params: SamplingParams | None = None, adapter: str = ""
    ) -> Completion | list[Completion]:
        """Continues text (a start token is put before it) or token ids (taken as they are); one prompt or many."""
        one = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
        many: Sequence[Prompt] = [prompts] if one else prompts  # type: ignore[list-item, assignment]
        params = params or SamplingParams()
        requests = [
            Request(tuple(self.tokenizer.encode(p, bos=True) if isinstance(p, str) else p), params, adapter=adapter)
            for p in many
        ]
        asked = self._ask(requests, lambda: Continuation(self.tokenizer), lambda: self._matcher(params, ()))
        completions = self._answers(asked)
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
        params = params or SamplingParams()
        requests = [self.request(messages, params) for messages in conversations]
        asked = self._ask(requests, self.tokenizer.chat.parser, lambda: self._matcher(params, ()))
        return self._answers(asked)

    def stream(
        self, messages: Messages, params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Iterator[StreamEvent]:
        """Answers a conversation piece by piece; the last event is `Done` with the whole answer.

        Where several answers are asked for, the first streams and the others come with `Done`.
        """
        params = params or SamplingParams()
        tools = () if params.tool_choice == "none" else tools
        request = self.request(messages, params, tools)
        answers = self.ask_all(request, tools)
        try:
            while not answers[0].ended:
                self.engine.step()
                yield from answers[0].take_events()
            yield from answers[0].take_events()
            yield Done(self._answers([answers])[0])
        finally:
            self._cancel([answers])

    def request(
        self,
        messages: Messages,
        params: SamplingParams,
        tools: Sequence[ToolSpec] = (),
        *,
        tenant: str = "",
        adapter: str = "",
        priority: int = 0,
    ) -> Request:
        """A conversation as the engine takes it."""
        prompt = tuple(self.tokenizer.chat.render(as_messages(messages), tools))
        return Request(prompt, params, priority, tenant, adapter)

    def ask_all(self, request: Request, tools: Sequence[ToolSpec] = ()) -> list[Hearing]:
        """Hands a conversation's request to the engine, once for each answer that it asks for."""
        (answers,) = self._ask(
            [request], lambda: self.tokenizer.chat.parser(tools), lambda: self._matcher(request.params, tools)
        )
        return answers

    def ask(self, request: Request, reader: Reader, matcher: Matcher | None = None, answer: int = 0) -> Hearing:
        """Hands a request to the engine; what is heard of it comes as the engine steps."""
        hearing = Hearing(reader, request.params.stop)
        hearing.generation = self.engine.add(request, hearing, matcher, answer)
        return hearing

    def _ask(
        self, requests: Sequence[Request], reader: Callable[[], Reader], matcher: Callable[[], Matcher | None]
    ) -> list[list[Hearing]]:
        """For each request its answers; when one is refused, none is asked."""
        asked: list[list[Hearing]] = []
        try:
            for request in requests:
                asked.append([])
                for answer in range(request.params.n):
                    asked[-1].append(self.ask(request, reader(), matcher(), answer))
        except BaseException:
            self._cancel(asked)
            raise
        return asked

    def _cancel(self, asked: Sequence[Sequence[Hearing]]) -> None:
        for answers in asked:
            for hearing in answers:
                self.engine.cancel(hearing.generation)

    def _answers(self, asked: Sequence[Sequence[Hearing]]) -> list[Completion]:
        """Waits for all answers to all requests."""
        try:
            for answers in asked:
                while not all(hearing.ended for hearing in answers):
                    self.engine.step()
            return [completion_of(answers) for answers in asked]
        finally:
            self._cancel(asked)

    def _matcher(self, params: SamplingParams, tools: Sequence[ToolSpec]) -> Matcher | None:
        if params.constraint is not None:
            return self.grammars.matcher(params.constraint)
        if params.tool_choice not in ("auto", "none"):
            return self.grammars.call_matcher(tools, params.tool_choice, self.tokenizer.chat.style)
        return None


class Hearing:
    """What is heard of one sequence: its tokens as text and calls, and when they came.

    Args:
        reader: reads its ids.
        stop: strings that end it.
    """

    generation: Generation

    def __init__(self, reader: Reader, stop: Sequence[str]) -> None:
        self._answer = Answer(reader, stop)
        self._events: deque[Event] = deque()
        self._closed = False
        self._started = time.perf_counter()
        self._first = self._last = 0.0

    def __call__(self, token: int) -> StopReason | None:
        """One token more; the engine's `on_token`."""
        self._last = time.perf_counter() - self._started
        self._first = self._first or self._last
        self._events += self._answer.take(token)
        return "stop" if self._answer.stopped else None

    @property
    def ended(self) -> bool:
        return self.generation.ended

    def take_events(self) -> Iterator[Event]:
        """What has come since the last call."""
        self._close()
        while self._events:
            yield self._events.popleft()

    def _close(self) -> None:
        if self.ended and not self._closed:
            self._closed = True
            self._events += self._answer.close()

    def completion(self) -> Completion:
        """The whole answer, after its end.

        Raises:
            PunaError: what made it fail.
        """
        generation = self.generation
        if generation.error is not None:
            raise generation.error
        self._close()
        usage = Usage(
            len(generation.request.prompt),
            len(generation.ids),
            self._first,
            self._last - self._first,
            generation.cached_tokens,
        )
        # A stop string may come to light only when the answer is closed.
        reason = "stop" if self._answer.stopped else generation.stop_reason
        assert reason is not None
        return Completion(
            self._answer.message(),
            usage,
            reason,
            tuple(generation.ids),
            tuple(generation.logprobs),
            prompt_logprobs=tuple(generation.prompt_logprobs),
        )


def _no_tokenizer(path: Path | str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint {path} has no tokenizer.", hint="Put its tokenizer.model or tokenizer.json beside it."
    )


def completion_of(answers: Sequence[Hearing]) -> Completion:
    """The first of a request's answers, with the others in it."""
    first, *others = (hearing.completion() for hearing in answers)
    return replace(first, others=tuple(others))


def as_messages(messages: Messages) -> list[Message]:
    """A string as one user turn; dictionaries in OpenAI's shape as `Message`s."""
    if isinstance(messages, str):
        return [Message("user", messages)]
    return [m if isinstance(m, Message) else Message.from_json(m) for m in messages]
