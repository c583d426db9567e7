"""Raw completions: texts or token ids continued, without a chat format. Several prompts are answered together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.core.completion import Completion, Done, SamplingParams, StreamEvent, TextDelta, Usage
from puna.stack.context import Caller, caller_of, new_id, stack_of
from puna.stack.conversion import params_of, structured_of, whole
from puna.stack.errors import invalid
from puna.stack.providers.provider import Ask, Provider
from puna.stack.providers.vocabulary import vocabulary_of
from puna.stack.routes.models import find
from puna.stack.sse import EventStream, connected, ending, told
from puna.stack.wire.chat import Frame, frame_of, usage_json
from puna.stack.wire.completions import (
    CompletionRequest,
    Echo,
    TextChunkWriter,
    choice_json,
    finish_of,
    logprobs_json,
    text_completion,
)

router = APIRouter(tags=["completions"])
Prompt = str | Sequence[int]
_MOST_PROMPTS = 2048


@router.post("/v1/openai/v1/completions", response_model=None, include_in_schema=False)
@router.post("/v1/completions", response_model=None)
async def create(request: Request, body: CompletionRequest) -> Response:
    stack, caller = stack_of(request), caller_of(request)
    provider, info = await find(stack, body.model)
    prompts, params = _prompts(body), _params(body)
    asks = [_ask(info.id, prompt, params, caller, provider) for prompt in prompts]
    frame = frame_of(new_id("cmpl"), time.time(), provider, info)
    if body.stream:
        return EventStream(_pieces(provider, asks, frame, body), told, ending(request.url.path))
    async with connected(request.receive):
        found = await _gathered([whole(provider.stream(ask)) for ask in asks])
        echoes = [await _echo(provider, ask, body, answer) for ask, answer in zip(asks, found, strict=True)]
    answers = [_chosen(answer, body) for answer in found]
    choices = []
    for prompt, (echo, answer) in enumerate(zip(echoes, answers, strict=True)):
        for k, one in enumerate((answer, *answer.others)):
            index = prompt * (1 + len(answer.others)) + k
            text = echo.text + one.message.content
            choices.append(choice_json(index, text, _logprobs(body, echo, one), finish_of(one)))
    return JSONResponse(text_completion(frame, choices, _usage(answers)))


def _prompts(body: CompletionRequest) -> list[Prompt]:
    given = "" if body.prompt is None else body.prompt
    if not isinstance(given, str) and not given:
        raise invalid("There is no prompt in the list.", "prompt", "empty_array")
    prompts: list[Prompt] = [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)  # type: ignore[list-item, arg-type]
    if len(prompts) > _MOST_PROMPTS:
        raise invalid(f"There are {len(prompts):,} prompts; at most {_MOST_PROMPTS:,} are answered at once.", "prompt")
    return prompts


def _params(body: CompletionRequest) -> SamplingParams:
    if body.suffix:
        raise invalid("Text between a prefix and a suffix is what POST /infill is for.", "suffix", "unsupported_value")
    n, best_of = body.n or 1, max(body.best_of or 1, body.n or 1)
    if body.best_of and body.best_of < n:
        raise invalid(f"best_of is {body.best_of}; it must be at least n ({n}).", "best_of")
    if best_of > n and body.stream:
        raise invalid("The best of several answers is known only at their end: it cannot be streamed.", "best_of")
    if body.stream_options is not None and not body.stream:
        raise invalid("stream_options is of use with stream: true alone.", "stream_options")
    params = params_of({**body.sampling(), "n": best_of}, structured_of(body.structured_outputs))
    logprobs = 0 if body.logprobs is None and best_of > n else body.logprobs
    about_prompt = bool(body.echo) and body.logprobs is not None
    return replace(params, max_tokens=max(1, body.limit), logprobs=logprobs, prompt_logprobs=about_prompt)


def _ask(model: str, prompt: Prompt, params: SamplingParams, caller: Caller, provider: Provider) -> Ask:
    key = caller.provider_keys.get(provider.id, "")
    return Ask(model, params=params, prompt=prompt, owner=caller.owner, key=key)


async def _gathered(work: Sequence[Any]) -> list[Completion]:
    """All results; the first failure, or a client that leaves, ends the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _echo(provider: Provider, ask: Ask, body: CompletionRequest, answer: Completion | None) -> Echo:
    """The prompt as it is said again; with its probabilities where `answer` has them."""
    if not body.echo:
        return Echo()
    if isinstance(ask.prompt, str) and body.logprobs is None:
        return Echo(ask.prompt)
    vocabulary = vocabulary_of(provider, "echo of token ids, or with logprobs,")
    if isinstance(ask.prompt, str):
        text, ids = ask.prompt, await vocabulary.encode(ask.model, ask.prompt)
    else:
        text, ids = await vocabulary.decode(ask.model, ask.prompt), list(ask.prompt)
    if body.logprobs is None or answer is None:
        return Echo(text)
    tokens = tuple(await vocabulary.token_bytes(ask.model, ids))
    # Before a text stands the start token, so that its first token has a probability too.
    missing: tuple[None, ...] = (None,) * (len(tokens) - len(answer.prompt_logprobs))
    return Echo(text, tokens, (*missing, *answer.prompt_logprobs))


def _chosen(answer: Completion, body: CompletionRequest) -> Completion:
    """The `n` likeliest of `best_of` answers; and nothing new where no tokens were asked for."""
    n = body.n or 1
    everything = [replace(answer, others=()), *answer.others]
    if len(everything) > n:
        everything.sort(key=_mean, reverse=True)
    if body.limit == 0:
        everything = [_nothing(one) for one in everything]
    first, *others = everything[:n]
    usage = replace(first.usage, prompt_tokens=answer.usage.prompt_tokens, cached_tokens=answer.usage.cached_tokens)
    return replace(first, usage=usage, others=tuple(others))


def _mean(answer: Completion) -> float:
    return sum(item.logprob for item in answer.logprobs) / max(1, len(answer.logprobs))


def _nothing(answer: Completion) -> Completion:
    usage = Usage(answer.usage.prompt_tokens, 0, cached_tokens=answer.usage.cached_tokens)
    message = replace(answer.message, content="")
    return replace(answer, message=message, usage=usage, stop_reason="length", ids=(), logprobs=())


def _logprobs(body: CompletionRequest, echo: Echo, answer: Completion) -> dict[str, Any] | None:
    return None if body.logprobs is None else logprobs_json(echo, answer.logprobs)


def _usage(answers: Sequence[Completion]) -> dict[str, Any]:
    """The counts of all prompts together."""
    flat = [one for answer in answers for one in (replace(answer, others=()), *answer.others)]
    prompt, cached = sum(a.usage.prompt_tokens for a in answers), sum(a.usage.cached_tokens for a in answers)
    first = replace(flat[0], usage=replace(flat[0].usage, prompt_tokens=prompt, cached_tokens=cached))
    return usage_json(replace(first, others=tuple(flat[1:])))


async def _pieces(
    provider: Provider, asks: Sequence[Ask], frame: Frame, body: CompletionRequest
) -> AsyncGenerator[bytes, None]:
    writer = TextChunkWriter(frame, bool(body.stream_options and body.stream_options.include_usage))
    n, answers, begun = body.n or 1, {}, set()
    async with aclosing(_merged([provider.stream(ask) for ask in asks])) as events:
        async for prompt, event in events:
            if prompt not in begun:
                begun.add(prompt)
                echo = await _echo(provider, asks[prompt], body, None)
                for k in range(n if echo.text else 0):
                    yield writer.choice(prompt * n + k, echo.text)
            if isinstance(event, TextDelta) and body.limit:
                yield writer.choice(prompt * n, event.text)
            elif isinstance(event, Done):
                answers[prompt] = answer = _chosen(event.completion, body)
                echo = await _echo(provider, asks[prompt], body, answer)
                for k, one in enumerate((answer, *answer.others)):
                    text = one.message.content if k else ""
                    yield writer.choice(prompt * n + k, text, _logprobs(body, echo, one), finish_of(one))
    if writer.include_usage:
        yield writer.usage(_usage([answers[prompt] for prompt in sorted(answers)]))


async def _merged(
    streams: Sequence[AsyncIterator[StreamEvent]],
) -> AsyncGenerator[tuple[int, StreamEvent], None]:
    """Events of several streams as they come, each with its stream's place; one that fails ends all."""
    arrived: asyncio.Queue[tuple[int, StreamEvent | Exception | None]] = asyncio.Queue(1)

    async def pump(place: int, stream: Any) -> None:
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    await arrived.put((place, event))
            await arrived.put((place, None))
        except Exception as error:
            await arrived.put((place, error))

    tasks = [asyncio.ensure_future(pump(place, stream)) for place, stream in enumerate(streams)]
    open_streams = len(tasks)
    try:
        while open_streams:
            place, event = await arrived.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                open_streams -= 1
            else:
                yield place, event
    finally:
        await _end(tasks)
