"""Reading what a server sends, which may be anything."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.base.errors import RemoteError
from puna.core.verdict import Price
from puna.stack.errors import ApiError
from puna.stack.providers.remote_reading import (
    Blotter,
    Streamed,
    UpstreamError,
    refusal,
    whole_json,
)

BLOT = Blotter("secret-of-ours")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["choices", "delta", "content", "tool_calls", "index", "usage", "logprobs",
                                       "function", "name", "arguments", "finish_reason", "text", "id"]), inner),
    max_leaves=12,
)  # fmt: skip


def test_keys_are_blotted_out_and_words_cut_short() -> None:
    said = BLOT.also("own-key")("secret-of-ours own-key sk-abcdefgh12 Bearer xyz  and\nmore")
    assert said == "*** *** *** *** and more"
    assert len(BLOT("x" * 999)) == 300


def respond(status: int, said: str = "no", own: bool = False, **headers: str) -> Any:
    response = httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return refusal(response, said, "http://a/v1", BLOT, own)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_some_refusals_may_pass(status: int) -> None:
    error = respond(status, retry_after="7")
    assert isinstance(error, UpstreamError)
    assert (error.status, error.may_pass, error.retry_after) == (status, True, 7.0)


def test_others_are_somebodys_fault() -> None:
    missing = respond(404)
    assert isinstance(missing, UpstreamError) and not missing.may_pass
    assert "ends with the version" in missing.hint
    assert "key" in respond(402).hint
    assert isinstance(respond(403, own=True), ApiError)
    fault = respond(400, '{"error": "just words"}')
    assert isinstance(fault, ApiError)
    assert fault.message == "http://a/v1 answered 400: just words"


def test_only_an_object_without_an_error_is_an_answer() -> None:
    assert whole_json(b'{"a": 1}', BLOT, "x") == {"a": 1}
    for data in (b"[]", b"{", b"\xff", b""):
        with pytest.raises(UpstreamError, match="no JSON object"):
            whole_json(data, BLOT, "x")
    with pytest.raises(UpstreamError, match=r"reports an error: .*\*\*\*"):
        whole_json(b'{"error": {"message": "secret-of-ours"}}', BLOT, "x")


def choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}


def test_probabilities_of_both_forms() -> None:
    streamed = Streamed(BLOT, "x")
    entry = {"token": "\ufffd", "bytes": [195], "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -1}]}
    streamed.add(choice(delta={"content": "x"}, logprobs={"content": [entry]}))
    old = {"tokens": ["b"], "token_logprobs": [-2.0], "top_logprobs": [{"c": -3.0}]}
    streamed.add(choice(delta={}, logprobs=old, finish_reason="stop"))
    first, second = streamed.completion(Price()).logprobs
    assert (first.token, first.logprob, first.names, first.top) == (b"\xc3", -0.5, (b"a",), ((-1, -1.0),))  # type: ignore[attr-defined]
    assert (second.token, second.names) == (b"b", (b"c",))  # type: ignore[attr-defined]


def test_a_call_that_was_cut_off_is_left_out() -> None:
    streamed = Streamed(BLOT, "x")
    call = {"index": 0, "function": {"name": "f", "arguments": '{"a'}}
    streamed.add(choice(delta={"content": "so", "tool_calls": [call]}, finish_reason="length"))
    found = streamed.completion(Price())
    assert (found.message.tool_calls, found.stop_reason, found.message.content) == ((), "length", "so")


def test_a_price_that_the_server_says_goes_first() -> None:
    streamed = Streamed(BLOT, "x")
    streamed.add({**choice(delta={}, finish_reason="stop"), "usage": {"prompt_tokens": 10, "cost": 0.25}})
    assert streamed.completion(Price(1e6)).cost == 0.25


@given(st.lists(JSON, max_size=6))
def test_nothing_that_a_server_says_breaks_more_than_its_own_answer(events: list[Any]) -> None:
    streamed = Streamed(BLOT, "x")
    for event in events:
        streamed.add(event if isinstance(event, dict) else {"choices": event})
    try:
        streamed.completion(Price())
    except RemoteError:
        return
