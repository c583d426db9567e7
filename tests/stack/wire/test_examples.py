"""Every example of the document is allowed by it, and answered by a server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from jsonschema import validate

from puna.stack.testing import make_stack, talk
from puna.stack.wire.examples import EXAMPLES


@pytest.mark.parametrize("key", EXAMPLES)
def test_an_example_is_allowed_and_answered(tmp_path: Path, key: str) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        method, path = key.split()
        place = next(place for place in (f"/v1{path}", f"/v1alpha{path}", path) if place in document["paths"])
        body = document["paths"][place][method.lower()]["requestBody"]["content"]["application/json"]
        assert body["example"] == EXAMPLES[key]
        validate(body["example"], {**body["schema"], "components": document["components"]})
        store = (await client.post("/v1/vector_stores", json={})).json()["id"]
        answer = await client.post(place.format(vector_store_id=store), json=body["example"])
        # The scripted model has no tokenizer.
        assert answer.status_code == (501 if "tokenize" in path else 200), answer.text

    talk(make_stack(tmp_path), work)
