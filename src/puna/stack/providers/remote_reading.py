"""What a server with OpenAI's API sends: refusals, and an answer from its chunks. Nothing of it is trusted."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from puna.base.errors import InputError, RemoteError
from puna.base.web import retry_after
from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, StopReason, Usage
from puna.core.verdict import Price
from puna.stack.conversion import NamedLogprob
from puna.stack.errors import ApiError

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504, 529))  # statuses that another attempt may not meet
_FAULTS = frozenset((400, 413, 422))  # the request's own
_EXCERPT = 300  # characters of a server's words that an error repeats
_KEY_LIKE = re.compile(r"\b(?:sk|pk|key|token)-[\w-]{8,}|\bBearer\s+\S+", re.IGNORECASE)


class UpstreamError(RemoteError):
    """A server's failure.

    Args:
        message: what happened.
        hint: the way out.
        status: of HTTP; 0 where no answer came.
        retry_after: seconds that the server asks to be left alone.
        may_pass: whether another attempt may succeed.
    """

    def __init__(
        self, message: str, *, hint: str = "", status: int = 0, retry_after: float = 0.0, may_pass: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.retry_after, self.may_pass = status, retry_after, may_pass


class Blotter:
    """Blots keys out of a server's words, and cuts them short.

    Args:
        keys: that it has been shown.
    """

    def __init__(self, *keys: str) -> None:
        self._keys = tuple(key for key in keys if key)

    def also(self, key: str) -> Blotter:
        return Blotter(*self._keys, key)

    def __call__(self, said: str) -> str:
        for key in self._keys:
            said = said.replace(key, "***")
        return " ".join(_KEY_LIKE.sub("***", said).split())[:_EXCERPT]


def refusal(response: httpx.Response, said: str, place: str, blot: Blotter, own_key: bool) -> Exception:
    """What a status other than 200 means.

    Args:
        response: with the status and headers.
        said: its body.
        place: the server's address.
        blot: for its words.
        own_key: whether the caller's own key was sent.
    """
    status = response.status_code
    error = _error_of(said)
    words = blot(str(error.get("message") or "") or said) or response.reason_phrase
    message = f"{place} answered {status}: {words}"
    if status in _FAULTS:
        param, code = error.get("param"), error.get("code")
        return ApiError(
            400,
            message,
            param=param if isinstance(param, str) else None,
            code=code if isinstance(code, str) else "invalid_value",
        )
    if status in (401, 403) and own_key:
        return ApiError(status, message, code="invalid_provider_key")
    hint = "The server is busy or broken: try later."
    if status in (401, 402, 403):
        hint = "Give the provider a key that may use this model."
    elif status in (301, 302, 307, 308, 404, 405):
        hint = "Check the url, which ends with the version (/v1), and the model's name."
    asked = retry_after(response.headers.get("retry-after", ""))
    return UpstreamError(message, hint=hint, status=status, retry_after=asked, may_pass=status in _PASSING)


def _error_of(said: str) -> Mapping[str, Any]:
    try:
        data = json.loads(said)
    except ValueError:
        return {}
    error = data.get("error", data) if isinstance(data, dict) else {}
    return error if isinstance(error, dict) else {"message": error}


def whole_json(data: bytes, blot: Blotter, place: str) -> Mapping[str, Any]:
    """A JSON object that tells of no error."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UpstreamError(f"{place} answered what is no JSON object: {blot(data.decode(errors='replace'))!r}.")
    if found.get("error"):
        raise UpstreamError(f"{place} reports an error: {blot(json.dumps(found['error']))}", may_pass=True)
    return found


@dataclass(slots=True)
class _Choice:
    """One of the answers, so far."""

    text: list[str] = field(default_factory=list)
    finish: str = ""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[NamedLogprob] = field(default_factory=list)


class Streamed:
    """What has come of a streamed answer, of chat or raw.

    Args:
        blot: for the server's words.
        place: the server's address.
    """

    def __init__(self, blot: Blotter, place: str) -> None:
        self._blot, self._place = blot, place
        self._choices: dict[int, _Choice] = {}
        self._usage: Mapping[str, Any] = {}
        self._started = time.monotonic()
        self._first = 0.0

    def add(self, data: Mapping[str, Any]) -> str:
        """Takes one event in; returns the text that it brings to the first answer."""
        if isinstance(usage := data.get("usage"), dict):
            self._usage = usage
        new = ""
        choices = data.get("choices")
        for piece in choices if isinstance(choices, list) else ():
            if isinstance(piece, dict):
                text = self._take(piece)
                new += text if not piece.get("index") else ""
        if new and not self._first:
            self._first = time.monotonic() - self._started
        return new

    def _take(self, piece: Mapping[str, Any]) -> str:
        index, delta = piece.get("index"), piece.get("delta")
        choice = self._choices.setdefault(index if isinstance(index, int) else 0, _Choice())
        delta = delta if isinstance(delta, dict) else {"content": piece.get("text")}
        if isinstance(finish := piece.get("finish_reason"), str):
            choice.finish = finish
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                _join_call(choice.calls, call)
        if isinstance(logprobs := piece.get("logprobs"), dict):
            choice.logprobs += _logprobs(logprobs)
        text = delta.get("content")
        if not isinstance(text, str) or not text:
            return ""
        choice.text.append(text)
        return text

    def completion(self, price: Price) -> Completion:
        """The whole answer.

        Raises:
            UpstreamError: it is not whole, or cannot be read.
        """
        if not self._choices or not all(choice.finish for choice in self._choices.values()):
            raise UpstreamError(f"{self._place} ended its answer without saying that it is complete.", may_pass=True)
        usage = self._counts()
        first, *others = (self._answer(choice) for _, choice in sorted(self._choices.items()))
        message, reason, logprobs = first
        rest = tuple(Completion(m, Usage(usage.prompt_tokens), r, logprobs=lp) for m, r, lp in others)
        return Completion(message, usage, reason, logprobs=logprobs, cost=self._cost(usage, price), others=rest)

    def _answer(self, choice: _Choice) -> tuple[Message, StopReason, tuple[NamedLogprob, ...]]:
        if choice.finish == "content_filter":
            raise UpstreamError(f"{self._place} withheld the answer (content_filter).")
        calls: list[ToolCall] = []
        for _, call in sorted(choice.calls.items()):
            try:
                calls.append(ToolCall.from_json(call))
            except InputError as error:
                if choice.finish == "length":
                    continue  # cut off in the middle of its arguments
                raise UpstreamError(f"{self._place} answered a tool call that cannot be read: {error}.") from error
        reason: StopReason = "length" if choice.finish == "length" else "end_of_message" if calls else "end_of_turn"
        message = Message("assistant", "".join(choice.text), tuple(calls), end_of_turn=not calls)
        return message, reason, tuple(choice.logprobs)

    def _counts(self) -> Usage:
        details = self._usage.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens") if isinstance(details, dict) else 0
        seconds = time.monotonic() - self._started
        first = self._first or seconds
        prompt, answer = _count(self._usage, "prompt_tokens"), _count(self._usage, "completion_tokens")
        return Usage(prompt, answer, first, seconds - first, cached)

    def _cost(self, usage: Usage, price: Price) -> float:
        """What the server says that it cost, as OpenRouter does; else by the price."""
        if isinstance(said := self._usage.get("cost"), (int, float)) and said >= 0:
            return float(said)
        cached = min(usage.cached_tokens, usage.prompt_tokens) if price.cached_input else 0
        fresh = usage.prompt_tokens - cached
        return (fresh * price.input + cached * price.cached_input + usage.completion_tokens * price.output) / 1e6


def _count(data: Mapping[str, Any], name: str) -> int:
    value = data.get(name)
    return int(value) if isinstance(value, (int, float)) and value > 0 else 0


def _join_call(calls: dict[int, dict[str, Any]], piece: Mapping[str, Any]) -> None:
    index = piece.get("index")
    place = index if isinstance(index, int) else len(calls)
    call = calls.setdefault(place, {"id": "", "function": {"name": "", "arguments": ""}})
    call["id"] = piece.get("id") or call["id"]
    function = piece.get("function")
    for name in ("name", "arguments"):
        value = function.get(name) if isinstance(function, dict) else None
        if isinstance(value, str):
            call["function"][name] += value


def _logprobs(data: Mapping[str, Any]) -> list[NamedLogprob]:
    """The probabilities in a chunk: chat's list, or the four lists of the old form."""
    if isinstance(content := data.get("content"), list):
        return [_entry(item, item.get("top_logprobs") or ()) for item in content if isinstance(item, dict)]
    tokens, values, tops = (data.get(name) for name in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
        return []
    alternatives = tops if isinstance(tops, list) and len(tops) == len(tokens) else [None] * len(tokens)
    return [
        _entry({"token": token, "logprob": value}, [{"token": t, "logprob": v} for t, v in (top or {}).items()])
        for token, value, top in zip(tokens, values, alternatives, strict=True)
    ]


def _entry(item: Mapping[str, Any], tops: Sequence[Mapping[str, Any]]) -> NamedLogprob:
    top = tuple((-1, float(one.get("logprob") or 0.0)) for one in tops)
    return NamedLogprob(-1, float(item.get("logprob") or 0.0), top, _bytes(item), tuple(_bytes(one) for one in tops))


def _bytes(item: Mapping[str, Any]) -> bytes:
    given = item.get("bytes")
    if isinstance(given, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in given):
        return bytes(given)
    return str(item.get("token") or "").encode(errors="replace")
