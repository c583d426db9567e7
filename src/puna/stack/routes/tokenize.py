"""Text to token ids and back, in llama.cpp's form and in vLLM's, and text between two others (llama.cpp's /infill).

A model that is not named is the first that the server offers. Infilling is for models that were trained for it, which
shows in the special tokens that their vocabulary has; for others it is refused, and nothing is made up in its place.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from puna.core.completion import Completion, Done, TextDelta
from puna.stack.context import Stack, caller_of, stack_of
from puna.stack.conversion import OPEN_END, messages_of, params_of, tools_of, whole
from puna.stack.errors import invalid, not_found, not_implemented
from puna.stack.providers.provider import Ask, ModelInfo, Provider
from puna.stack.providers.vocabulary import Vocabulary, vocabulary_of
from puna.stack.routes.models import find
from puna.stack.sse import EventStream, connected, event, told
from puna.stack.wire.completions import DetokenizeRequest, InfillRequest, TokenizeRequest

router = APIRouter(tags=["tokens"])
# Names of the tokens before the prefix, the suffix and the middle, as models that infill have them.
_INFILLING = (
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<PRE>", "<SUF>", "<MID>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)
_STOPS = {"length": "limit", "stop": "word"}


async def _model(stack: Stack, id: str | None) -> tuple[Provider, ModelInfo]:
    if id is not None:
        return await find(stack, id)
    models = stack.models or await stack.refresh_models()
    first = next((pair for pair in models.values() if pair[1].type == "llm"), None)
    if first is None:
        raise not_found("model", "", "model")
    return first


@router.post("/tokenize", response_model=None)
@router.post("/v1/tokenize", response_model=None)
async def tokenize(request: Request, body: TokenizeRequest) -> JSONResponse:
    provider, info = await _model(stack_of(request), body.model)
    if body.messages is not None:
        count = await provider.count_tokens(info.id, messages_of(body.messages), tools_of(body.tools))
        if count is None:
            raise not_implemented(f"Nobody here knows the tokenizer of {info.id!r}.")
        return JSONResponse({"count": count, "max_model_len": info.context_length or None})
    text = body.content if body.content is not None else body.prompt
    if text is None:
        raise invalid("There is no text: give content, prompt or messages.", "content", "missing")
    vocabulary = vocabulary_of(provider, "Tokenizing")
    ids = await vocabulary.encode(info.id, text, bos=body.add_special, special=body.parse_special)
    tokens: list[Any] = list(ids)
    if body.with_pieces:
        names = await vocabulary.token_bytes(info.id, ids)
        tokens = [{"id": id, "piece": _piece(name)} for id, name in zip(ids, names, strict=True)]
    return JSONResponse({"tokens": tokens, "count": len(ids), "max_model_len": info.context_length or None})


def _piece(token: bytes) -> str | list[int]:
    """A token's text; its bytes where they are no text by themselves."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return list(token)


@router.post("/detokenize", response_model=None)
@router.post("/v1/detokenize", response_model=None)
async def detokenize(request: Request, body: DetokenizeRequest) -> JSONResponse:
    provider, info = await _model(stack_of(request), body.model)
    text = await vocabulary_of(provider, "Detokenizing").decode(info.id, body.tokens)
    return JSONResponse({"content": text, "prompt": text})


@router.post("/infill", response_model=None)
async def infill(request: Request, body: InfillRequest) -> Response:
    """The text between a prefix and a suffix."""
    provider, info = await _model(stack_of(request), body.model)
    prompt = await _around(vocabulary_of(provider, "Infilling"), info.id, body)
    given = {name: getattr(body, name) for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop")}
    limit = body.n_predict if body.n_predict >= 0 else OPEN_END
    params = params_of({**given, "max_tokens": max(1, limit)})
    caller = caller_of(request)
    key = caller.provider_keys.get(provider.id, "")
    ask = Ask(info.id, params=params, prompt=prompt, owner=caller.owner, key=key)
    name = f"{provider.id}/{info.id}"
    if body.stream:
        return EventStream(_pieces(provider, ask, name), told)
    async with connected(request.receive):
        completion = await whole(provider.stream(ask))
    return JSONResponse({"content": completion.message.content, **_end(completion, name)})


async def _around(vocabulary: Vocabulary, model: str, body: InfillRequest) -> list[int]:
    """Ids of the prompt: other files, the prefix, the suffix, and the place where the middle goes."""
    special = await vocabulary.special_tokens(model)
    names = next((names for names in _INFILLING if all(name in special for name in names)), None)
    if names is None:
        raise not_implemented(
            f"The model {model!r} was not trained to fill in a middle: its vocabulary has no tokens for it. "
            "Ask for a completion or a chat instead."
        )
    before, after, middle = (special[name] for name in names)
    extra = [_file(i, file) for i, file in enumerate(body.input_extra or ())]
    prefix = await vocabulary.encode(model, "".join(extra) + body.input_prefix + body.prompt)
    suffix = await vocabulary.encode(model, body.input_suffix)
    start = (await vocabulary.encode(model, "", bos=True))[:1]
    return [*start, before, *prefix, after, *suffix, middle]


def _file(i: int, file: Mapping[str, Any]) -> str:
    name, text = file.get("filename", ""), file.get("text")
    if not isinstance(name, str) or not isinstance(text, str):
        raise invalid("A file has a filename and a text.", f"input_extra.{i}")
    return f"{name}\n{text}\n\n" if name else f"{text}\n\n"


async def _pieces(provider: Provider, ask: Ask, name: str) -> AsyncGenerator[bytes, None]:
    async with aclosing(provider.stream(ask)) as events:  # type: ignore[type-var]
        async for found in events:
            if isinstance(found, TextDelta):
                yield event({"content": found.text, "stop": False})
            elif isinstance(found, Done):
                yield event({"content": "", **_end(found.completion, name)})


def _end(completion: Completion, model: str) -> dict[str, Any]:
    """What llama.cpp says at the end of an answer."""
    return {
        "stop": True,
        "model": model,
        "tokens_predicted": completion.usage.completion_tokens,
        "tokens_evaluated": completion.usage.prompt_tokens,
        "tokens_cached": completion.usage.cached_tokens,
        "stop_type": _STOPS.get(completion.stop_reason, "eos"),
    }
