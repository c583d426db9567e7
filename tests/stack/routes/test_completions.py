"""Raw completions over HTTP, by a script and by a real model of random weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.base.errors import RemoteError
from puna.core.completion import StreamEvent, TextDelta
from puna.engine.local import LocalModel
from puna.stack.providers.engine import EngineProvider
from puna.stack.providers.provider import Ask, Provider
from puna.stack.testing import ScriptedProvider, make_stack, talk
from puna.testing import tiny_model, tiny_tokenizer

PATH = "/v1/completions"


def post(folder: Path, provider: Provider, **body: Any) -> httpx.Response:
    return talk(make_stack(folder, provider), lambda client: client.post(PATH, json={"model": "tiny", **body}))


def engine() -> EngineProvider:
    return EngineProvider("local", {"tiny": lambda: LocalModel(tiny_model(2), tiny_tokenizer())})


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    *lines, done = [line[6:] for line in answer.text.split("\n\n") if line]
    assert done == "[DONE]"
    return [json.loads(line) for line in lines]


def test_texts_and_ids_are_continued(tmp_path: Path) -> None:
    provider = ScriptedProvider()
    data = post(tmp_path, provider, prompt="a b").json()
    assert data["object"] == "text_completion"
    assert (data["choices"][0]["text"], data["choices"][0]["logprobs"]) == ("a b", None)
    assert provider.asked[0].params.max_tokens == 16
    assert post(tmp_path, ScriptedProvider(), prompt=[1, 2]).json()["choices"][0]["text"] == "1 2"
    many = post(tmp_path, ScriptedProvider(), prompt=["a", "b", "c d"]).json()
    assert [(choice["index"], choice["text"]) for choice in many["choices"]] == [(0, "a"), (1, "b"), (2, "c d")]
    assert many["usage"]["completion_tokens"] == 4
    assert len(post(tmp_path, ScriptedProvider(), prompt=[[1], [2, 3]]).json()["choices"]) == 2
    assert post(tmp_path, ScriptedProvider()).status_code == 200


def test_a_prompt_is_said_again_where_that_is_asked_for(tmp_path: Path) -> None:
    assert post(tmp_path, ScriptedProvider(), prompt="a b", echo=True).json()["choices"][0]["text"] == "a ba b"
    refused = post(tmp_path, ScriptedProvider(), prompt=[1], echo=True)
    assert refused.status_code == 501
    assert "tokenizer" in refused.json()["error"]["message"]


def test_streams_of_several_prompts_join_to_their_texts(tmp_path: Path) -> None:
    body = {"prompt": ["a b", "c d e"], "echo": True, "stream": True, "stream_options": {"include_usage": True}}
    *steps, last = chunks(post(tmp_path, ScriptedProvider(pause=0.001), **body))
    texts = {0: "", 1: ""}
    for chunk in steps:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["text"]
    assert texts == {0: "a ba b", 1: "c d ec d e"}
    assert sorted(c["choices"][0]["index"] for c in steps if c["choices"][0]["finish_reason"] == "stop") == [0, 1]
    assert last["usage"]["completion_tokens"] == 5


class Breaking(ScriptedProvider):
    """Fails on one of its prompts, and notes which of the others was ended."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Any] = []

    async def stream(self, ask: Ask) -> AsyncIterator[StreamEvent]:
        if ask.prompt == "bad":
            await asyncio.sleep(0.02)
            raise RemoteError("gone")
        try:
            while True:
                yield TextDelta("x")
                await asyncio.sleep(0.001)
        finally:
            self.ended.append(ask.prompt)


@pytest.mark.parametrize("stream", [False, True])
def test_one_failure_ends_the_other_prompts(tmp_path: Path, stream: bool) -> None:
    provider = Breaking()
    answer = post(tmp_path, provider, prompt=["good", "bad", "fine"], stream=stream)
    assert "gone" in answer.text
    assert answer.status_code == (200 if stream else 502)
    assert sorted(provider.ended) == ["fine", "good"]


def test_probabilities_of_prompt_and_answer_agree_with_the_model(tmp_path: Path) -> None:
    model = LocalModel(tiny_model(2), tiny_tokenizer())
    ids = model.tokenizer.encode("hello", bos=True)
    expected = model.token_logprobs([ids])[0]

    async def work(client: httpx.AsyncClient) -> None:
        body = {"model": "tiny", "prompt": "hello", "echo": True, "logprobs": 2, "max_tokens": 3, "temperature": 0}
        data = (await client.post(PATH, json=body)).json()
        (choice,) = data["choices"]
        logprobs = choice["logprobs"]
        assert logprobs["tokens"][:5] == list("hello")
        assert logprobs["token_logprobs"][:5] == pytest.approx(expected, abs=1e-4)
        assert logprobs["text_offset"][:5] == [0, 1, 2, 3, 4]
        assert choice["text"].startswith("hello")
        new = logprobs["top_logprobs"][5:]
        assert all(len(top) >= 1 for top in new)
        assert data["usage"]["prompt_tokens"] == 6
        # Ids are taken as they are, so that nothing comes before the first.
        body |= {"prompt": ids[1:], "max_tokens": 0}
        (choice,) = (await client.post(PATH, json=body)).json()["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("hello", "length")
        assert choice["logprobs"]["token_logprobs"][0] is None
        assert len(choice["logprobs"]["tokens"]) == 5

    talk(make_stack(tmp_path, engine()), work)


def test_the_best_of_several_is_the_likeliest(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        body = {"model": "tiny", "prompt": "a", "seed": 1, "temperature": 1, "top_p": 1, "logprobs": 0, "max_tokens": 4}
        many = (await client.post(PATH, json={**body, "n": 5})).json()["choices"]
        best = (await client.post(PATH, json={**body, "best_of": 5, "n": 2})).json()["choices"]

        def mean(choice: Any) -> float:
            values = choice["logprobs"]["token_logprobs"]
            return sum(values) / len(values)

        wanted = sorted(many, key=mean, reverse=True)[:2]
        assert [choice["text"] for choice in best] == [choice["text"] for choice in wanted]

    talk(make_stack(tmp_path, engine()), work)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"prompt": []}, "prompt", "no prompt"),
        ({"prompt": ["a"] * 2049}, "prompt", "2,049"),
        ({"suffix": "b"}, "suffix", "/infill"),
        ({"n": 3, "best_of": 2}, "best_of", "at least n"),
        ({"best_of": 2, "stream": True}, "best_of", "cannot be streamed"),
        ({"stream_options": {}}, "stream_options", "stream"),
        ({"logprobs": 99}, "logprobs", "20"),
        ({"structured_outputs": {}}, "structured_outputs", "one of"),
    ],
)
def test_a_refusal_names_the_field(tmp_path: Path, body: dict[str, Any], param: str, words: str) -> None:
    answer = post(tmp_path, ScriptedProvider(), **{"prompt": "a", **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert words in error["message"]
