"""OpenAI's own client, unmodified, against a server on the loopback: files, vector stores and batches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from puna.stack.testing import live, make_stack

openai = pytest.importorskip("openai", reason="the package openai is not installed")


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Any]:
    with (
        live(make_stack(tmp_path), "/v1") as url,
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as found,
    ):
        yield found


def test_files(client: Any) -> None:
    file = client.files.create(
        file=("notes.txt", b"some text"), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (file.bytes, file.filename, file.status) == (9, "notes.txt", "processed")
    assert file.expires_at == file.created_at + 3600
    assert client.files.content(file.id).read() == b"some text"
    others = [client.files.create(file=(f"{n}.txt", b"x"), purpose="evals").id for n in range(5)]
    assert [one.id for one in client.files.list(purpose="evals", limit=2, order="asc")] == others
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError) as missing:
        client.files.retrieve(file.id)
    assert (missing.value.code, missing.value.param) == ("not_found", "file_id")
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.txt", b"x"), purpose="nonsense")
    assert refused.value.param == "purpose"


def test_vector_stores(client: Any) -> None:
    store = client.vector_stores.create(
        name="animals", metadata={"a": "b"}, expires_after={"anchor": "last_active_at", "days": 7}
    )
    assert store.expires_at == store.last_active_at + 7 * 86400
    file = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("llamas.txt", b"Llamas eat grass."), attributes={"year": 2020.0, "wild": False}
    )
    assert (file.status, file.last_error, file.attributes) == ("completed", None, {"year": 2020.0, "wild": False})
    batch = client.vector_stores.file_batches.upload_and_poll(
        vector_store_id=store.id,
        files=[("ferns.txt", b"Ferns grow in the shade."), ("yaks.md", b"# Yaks\n\nYaks carry loads.")],
    )
    assert (batch.status, batch.file_counts.completed) == ("completed", 2)
    assert client.vector_stores.retrieve(store.id).file_counts.total == 3
    filters = {"type": "and", "filters": [{"type": "gte", "key": "year", "value": 2000}]}
    (hit,) = client.vector_stores.search(store.id, query="what eats grass", filters=filters, rewrite_query=True)
    assert (hit.file_id, hit.filename, hit.content[0].text) == (file.id, "llamas.txt", "Llamas eat grass.")
    assert 0 < hit.score <= 1
    assert client.vector_stores.files.content(file.id, vector_store_id=store.id).data[0].text == "Llamas eat grass."
    names = {one.id for one in client.vector_stores.files.list(store.id, limit=1)}
    assert len(names) == 3
    assert client.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={"b": "c"}).attributes == {
        "b": "c"
    }
    assert client.vector_stores.files.delete(file.id, vector_store_id=store.id).deleted
    assert client.vector_stores.update(store.id, name="plants").name == "plants"
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(store.id)


def test_batches(client: Any) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "say it"}]}
    lines = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(3)]
    file = client.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    until = time.monotonic() + 30
    while batch.status not in ("completed", "failed"):
        assert time.monotonic() < until
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 3)
    rows = [json.loads(row) for row in client.files.content(batch.output_file_id).text.splitlines()]
    assert {row["response"]["body"]["choices"][0]["message"]["content"] for row in rows} == {"say it"}
    assert [one.id for one in client.batches.list()] == [batch.id]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
