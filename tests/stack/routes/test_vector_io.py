"""/v1/vector-io: passages that the caller cut."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from puna.stack.testing import make_stack, running

CHUNKS = [
    {"content": "Llamas eat grass.", "metadata": {"document_id": "doc-1", "page": 1}, "chunk_id": "c1"},
    {"content": [{"type": "text", "text": "Ferns grow in the shade."}], "metadata": {"document_id": "doc-2"}},
    {
        "content": "word " * 3000,
        "chunk_metadata": {"document_id": "doc-3", "source": "long.txt"},
        "embedding": [1.0, 2.0],
    },
]


def serve(folder: Path, check: Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]) -> None:
    """Runs an application; `check` is given what posts to it."""

    async def main() -> None:
        async with running(make_stack(folder)) as server, server.client(path="/v1", raises=True) as c:

            async def post(path: str, status: int = 200, **body: Any) -> Any:
                answer = await c.post(path, json=body)
                assert answer.status_code == status, answer.text
                return answer.json()

            await check(post)

    asyncio.run(main())


def test_passages_are_found_whole_with_what_came_with_them(tmp_path: Path) -> None:
    async def check(post: Callable[..., Awaitable[Any]]) -> None:
        id = (await post("/vector_stores"))["id"]
        inserted = (await post("/vector-io/insert", vector_store_id=id, chunks=CHUNKS))["inserted"]
        assert inserted[0] == "c1"
        found = await post("/vector-io/query", vector_store_id=id, query="What do llamas eat?")
        assert found["chunks"][0]["content"] == "Llamas eat grass."
        assert found["chunks"][0]["chunk_id"] == "c1"
        assert found["chunks"][0]["embedding_model"] == "scripted/letters"
        assert found["chunks"][0]["embedding_dimension"] == 26
        assert found["chunks"][0]["metadata"] == {"document_id": "doc-1", "page": 1}
        assert len(found["scores"]) == len(found["chunks"]) == 3
        assert found["scores"] == sorted(found["scores"], reverse=True)
        found = await post(
            "/vector-io/query", vector_db_id=id, query={"type": "text", "text": "word"}, params={"max_chunks": 1}
        )
        assert [chunk["content"] for chunk in found["chunks"]] == ["word " * 3000]
        assert found["chunks"][0]["chunk_metadata"]["source"] == "long.txt"

    serve(tmp_path, check)


def test_search_names_the_document_that_a_passage_is_of(tmp_path: Path) -> None:
    async def check(post: Callable[..., Awaitable[Any]]) -> None:
        id = (await post("/vector_stores"))["id"]
        await post("/vector-io/insert", vector_store_id=id, chunks=CHUNKS)
        hits = (await post(f"/vector_stores/{id}/search", query="ferns in the shade"))["data"]
        assert hits[0]["file_id"] == "doc-2"

    serve(tmp_path, check)


def test_inserting_again_makes_no_second_passage(tmp_path: Path) -> None:
    async def check(post: Callable[..., Awaitable[Any]]) -> None:
        id = (await post("/vector_stores"))["id"]
        for _ in range(2):
            await post("/vector-io/insert", vector_store_id=id, chunks=CHUNKS)
        found = await post("/vector-io/query", vector_store_id=id, query="grass shade word")
        assert len(found["chunks"]) == 3

    serve(tmp_path, check)


BAD: dict[str, dict[str, Any]] = {
    "params.max_chunks": {"query": "a", "params": {"max_chunks": 0}},
    "params.mode": {"query": "a", "params": {"mode": "magic"}},
    "params.score_threshold": {"query": "a", "params": {"score_threshold": "high"}},
    "query": {"query": [{"type": "image", "url": "x"}]},
}


@pytest.mark.parametrize("param", BAD)
def test_a_wrong_query_is_refused_with_its_field(tmp_path: Path, param: str) -> None:
    async def check(post: Callable[..., Awaitable[Any]]) -> None:
        id = (await post("/vector_stores"))["id"]
        answer = await post("/vector-io/query", 400, vector_store_id=id, **BAD[param])
        assert answer["error"]["param"] == param

    serve(tmp_path, check)


def test_wrong_passages_and_unknown_stores_are_refused(tmp_path: Path) -> None:
    async def check(post: Callable[..., Awaitable[Any]]) -> None:
        id = (await post("/vector_stores"))["id"]
        await post("/vector-io/insert", 404, vector_store_id="vs_none", chunks=CHUNKS)
        answer = await post("/vector-io/insert", 400, vector_store_id=id, chunks=[CHUNKS[0], {"content": " "}])
        assert answer["error"]["param"] == "chunks.1.content"
        assert (await post("/vector-io/query", vector_store_id=id, query="llamas"))["chunks"] == []
        assert (await post("/vector-io/query", 400, query="a"))["error"]["param"] == "vector_store_id"

    serve(tmp_path, check)
