"""What ogx-client 1.5 has and this server serves, against the server of the first argument.

Empty pages are asked for wherever there are any: the client takes no null for their ids.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from ogx_client import OgxClient

client = OgxClient(base_url=sys.argv[1])
MODEL, LETTERS = "scripted/tiny", "scripted/letters"
FOLDER = Path(tempfile.mkdtemp())


def inspection() -> None:
    assert client.inspect.health().status == "OK"
    assert client.inspect.version().version
    assert any(route.route == "/v1/responses" for route in client.routes.list())
    assert {provider.api for provider in client.providers.list()} >= {"inference", "files"}
    assert client.providers.retrieve("scripted").provider_type == "inline::scripted"
    assert client.alpha.admin.health().status == "OK"


def models() -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == [LETTERS, MODEL]
    assert listed[0].custom_metadata["model_type"] == "embedding"
    assert client.models.retrieve(MODEL).id == MODEL


def chat() -> None:
    messages = [{"role": "user", "content": "two words"}]
    assert client.chat.completions.list().data == []
    answer = client.chat.completions.create(model=MODEL, messages=messages, store=True)
    assert answer.choices[0].message.content == "two words"
    chunks = list(client.chat.completions.create(model=MODEL, messages=messages, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "two words"
    assert client.completions.create(model=MODEL, prompt="more").choices[0].text == "more"
    assert len(client.embeddings.create(model=LETTERS, input="abc").data[0].embedding) == 26
    assert len(client.chat.completions.list().data) == 1


def responses() -> None:
    assert client.responses.list().data == []
    events = list(client.responses.create(model=MODEL, input="one two", stream=True))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two"
    made = client.responses.retrieve(events[-1].response.id)
    assert made.output_text == "one two"
    after = client.responses.create(model=MODEL, input="three", previous_response_id=made.id)
    assert (after.status, after.usage.total_tokens > 0) == ("completed", True)
    assert len(client.responses.input_items.list(response_id=after.id).data) >= 1
    assert len(client.responses.list().data) == 2
    assert client.responses.delete(made.id).deleted


def conversations() -> None:
    talk = client.conversations.create(metadata={"of": "test"})
    assert client.conversations.items.list(talk.id).data == []
    said = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}]
    item = client.conversations.items.create(talk.id, items=said).data[0]
    assert client.conversations.items.get(talk.id, item.id).role == "user"
    client.responses.create(model=MODEL, input="again", conversation=talk.id)
    assert len(client.conversations.items.list(talk.id).data) == 3
    assert client.conversations.update(talk.id, metadata={"of": "other"}).metadata == {"of": "other"}
    client.conversations.items.delete(talk.id, item.id)
    assert client.conversations.delete(talk.id).deleted


def files_and_stores() -> None:
    assert client.files.list().data == []
    assert client.vector_stores.list().data == []
    text = FOLDER / "bees.txt"
    text.write_text("Bees dance to say where flowers are.")
    file = client.files.create(file=str(text), purpose="assistants")
    assert client.files.retrieve(file.id).filename == "bees.txt"
    assert b"Bees dance" in as_bytes(client.files.content(file.id))
    store = client.vector_stores.create(name="garden", embedding_model=LETTERS)
    assert client.vector_stores.files.list(store.id).data == []
    part = client.vector_stores.files.create(store.id, file_id=file.id)
    while part.status == "in_progress":
        time.sleep(0.05)
        part = client.vector_stores.files.retrieve(store.id, file.id)
    assert part.status == "completed", part
    found = client.vector_stores.search(store.id, query="where do bees dance").data[0]
    assert (found.file_id, "Bees" in found.content[0].text) == (file.id, True)
    asked = [{"type": "file_search", "vector_store_ids": [store.id]}]
    assert client.responses.create(model=MODEL, input="bees", tools=asked).status == "completed"
    batch = client.vector_stores.file_batches.create(store.id, file_ids=[file.id])
    assert client.vector_stores.file_batches.retrieve(store.id, batch.id).file_counts.total == 1
    client.vector_stores.files.delete(store.id, file.id)
    assert client.vector_stores.delete(store.id).deleted
    assert client.files.delete(file.id).deleted


def batches() -> None:
    assert client.batches.list().data == []
    line = (
        '{"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body":'
        f' {{"model": "{MODEL}", "messages": [{{"role": "user", "content": "in a batch"}}]}}}}\n'
    )
    text = FOLDER / "batch.jsonl"
    text.write_text(line)
    file = client.files.create(file=str(text), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={}
    )
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.status == "completed", batch
    assert b"in a batch" in as_bytes(client.files.content(batch.output_file_id))
    assert [row.id for row in client.batches.list().data] == [batch.id]


def prompts() -> None:
    assert list(client.prompts.list()) == []
    made = client.prompts.create(prompt="Hi {{ name }}", variables=["name"])
    changed = client.prompts.update(
        made.prompt_id, prompt="Bye {{ name }}", variables=["name"], version=1, set_as_default=False
    )
    assert changed.version == 2
    assert client.prompts.set_default_version(made.prompt_id, version=2).is_default
    assert [found.version for found in client.prompts.versions.list(made.prompt_id)] == [1, 2]
    client.prompts.delete(made.prompt_id)


def as_bytes(content: object) -> bytes:
    return content if isinstance(content, bytes) else str(getattr(content, "text", content)).encode()


for part in (inspection, models, chat, responses, conversations, files_and_stores, batches, prompts):
    part()
    print(part.__name__)
print("OK")
