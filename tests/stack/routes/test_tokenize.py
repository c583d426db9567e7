"""Tokens over HTTP, by a real tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from puna.engine.local import LocalModel
from puna.stack.providers.engine import EngineProvider
from puna.stack.testing import make_stack, talk
from puna.testing import tiny_model, tiny_tokenizer
from puna.tokenizer import Tokenizer
from puna.tokenizer.special import special_tokens

TOKENIZER = tiny_tokenizer()


def engine(tokenizer: Tokenizer = TOKENIZER) -> EngineProvider:
    return EngineProvider("local", {"tiny": lambda: LocalModel(tiny_model(2), tokenizer)})


def infilling() -> Tokenizer:
    """The tiny tokenizer with three of its reserved tokens called as models that infill call theirs."""
    names = iter(("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"))
    special = {next(names, name) if "reserved" in name else name: id for name, id in special_tokens(256, 16).items()}
    return Tokenizer({bytes([byte]): byte for byte in range(256)}, special)


def test_text_to_ids_and_back(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async def tokens(**body: Any) -> list[Any]:
            return (await client.post("/tokenize", json=body)).json()["tokens"]

        text = "né<|eot_id|>"
        ids = await tokens(content=text)
        assert ids == TOKENIZER.encode(text, allow_special=True)
        assert await tokens(content=text, parse_special=False) == list(text.encode())
        assert await tokens(prompt="a", add_special=True, model="local/tiny") == [TOKENIZER.bos_id, 97]
        pieces = await tokens(content="né", with_pieces=True)
        assert [piece["piece"] for piece in pieces] == ["n", [0xC3], [0xA9]]
        back = (await client.post("/v1/detokenize", json={"tokens": ids})).json()
        assert back["content"] == text
        wrong = await client.post("/detokenize", json={"tokens": [99999]})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_value")
        missing = await client.post("/tokenize", json={})
        assert missing.json()["error"]["param"] == "content"

    talk(make_stack(tmp_path, engine()), work)


def test_a_conversation_is_counted_as_the_model_reads_it(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hello"}]

    async def work(client: httpx.AsyncClient) -> None:
        counted = (await client.post("/v1/tokenize", json={"messages": messages})).json()["count"]
        body = {"model": "tiny", "messages": messages, "max_tokens": 1}
        usage = (await client.post("/v1/chat/completions", json=body)).json()["usage"]
        assert counted == usage["prompt_tokens"]

    talk(make_stack(tmp_path, engine()), work)


def test_without_a_tokenizer_nothing_is_made_up(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        counted = await client.post("/tokenize", json={"messages": [{"role": "user", "content": "a b"}]})
        assert counted.json() == {"count": 2, "max_model_len": 4096}
        for path, body in (("/tokenize", {"content": "a"}), ("/detokenize", {"tokens": [1]}), ("/infill", {})):
            refused = await client.post(path, json=body)
            assert refused.status_code == 501, path
            assert "tokenizer" in refused.json()["error"]["message"]

    talk(make_stack(tmp_path), work)


def test_a_model_that_cannot_infill_says_so(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        refused = await client.post("/infill", json={"input_prefix": "def f("})
        assert refused.status_code == 501
        assert "not trained to fill in" in refused.json()["error"]["message"]

    talk(make_stack(tmp_path, engine()), work)


def test_a_model_that_can_gets_prefix_and_suffix_between_its_tokens(tmp_path: Path) -> None:
    tokenizer = infilling()
    special = tokenizer.special
    before, after, middle = (special[name] for name in ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"))
    extra = [*b"a.py\nx = 1\n\n"]
    prompt = [tokenizer.bos_id, before, *extra, *b"def f(", after, *b"): pass", middle]
    model = LocalModel(tiny_model(2), tokenizer)
    body = {"input_prefix": "def ", "prompt": "f(", "input_suffix": "): pass", "n_predict": 8, "seed": 3,
            "input_extra": [{"filename": "a.py", "text": "x = 1"}]}  # fmt: skip

    async def work(client: httpx.AsyncClient) -> None:
        data = (await client.post("/infill", json=body)).json()
        assert data["tokens_evaluated"] == len(prompt)
        assert data["stop"] is True
        whole = await client.post(
            "/v1/completions", json={"model": "tiny", "prompt": prompt, "max_tokens": 8, "seed": 3}
        )
        assert data["content"] == whole.json()["choices"][0]["text"]
        streamed = await client.post("/infill", json={**body, "stream": True})
        events = [json.loads(line[6:]) for line in streamed.text.split("\n\n") if line]
        assert "".join(event["content"] for event in events) == data["content"]
        assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
        refused = await client.post("/infill", json={**body, "input_extra": [{"text": 3}]})
        assert refused.json()["error"]["param"] == "input_extra.0"

    assert model.tokenizer.special == special
    talk(make_stack(tmp_path, engine(tokenizer)), work)
