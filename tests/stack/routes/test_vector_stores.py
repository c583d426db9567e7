"""/v1/vector_stores over the whole application, from an upload to a found passage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.stack.context import Caller
from puna.stack.testing import RunningServer, ScriptedProvider, make_stack, running

LLAMAS = b"Llamas live on the puna.\n\nThey eat grass and carry loads.\n"
FERNS = b"Ferns grow in the shade.\n\nThey have no flowers.\n"


Check = Callable[[httpx.AsyncClient, RunningServer], Awaitable[None]]


def as_owner(server: RunningServer, owner: str) -> httpx.AsyncClient:
    return server.client(Caller(owner), "/v1", raises=True)


def serve(folder: Path, check: Check) -> None:
    async def main() -> None:
        async with running(make_stack(folder)) as server, as_owner(server, "ada") as client:
            await check(client, server)

    asyncio.run(main())


async def post(client: httpx.AsyncClient, path: str, body: dict[str, Any] | None = None, status: int = 200) -> Any:
    answer = await client.post(path, json=body or {})
    assert answer.status_code == status, answer.text
    return answer.json()


async def get(client: httpx.AsyncClient, path: str, status: int = 200, **params: str) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


async def upload(client: httpx.AsyncClient, content: bytes = LLAMAS, name: str = "llamas.txt") -> str:
    answer = await client.post("/files", files={"file": (name, content)}, data={"purpose": "assistants"})
    return answer.json()["id"]


async def ended(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """What a path shows once its status is no longer in_progress."""
    until = time.monotonic() + 20
    while (shown := await get(client, path))["status"] == "in_progress":
        assert time.monotonic() < until, shown
        await asyncio.sleep(0.02)
    return shown


def test_an_attached_file_is_found(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        store = await post(client, "/vector_stores", {"name": "animals", "metadata": {"a": "b"}})
        assert store["object"] == "vector_store"
        assert (store["name"], store["status"], store["metadata"]) == ("animals", "completed", {"a": "b"})
        path = f"/vector_stores/{store['id']}"
        id = await upload(client)
        file = await post(client, f"{path}/files", {"file_id": id, "attributes": {"year": 2020}})
        assert (file["id"], file["object"], file["vector_store_id"]) == (id, "vector_store.file", store["id"])
        file = await ended(client, f"{path}/files/{id}")
        assert (file["status"], file["last_error"], file["attributes"]) == ("completed", None, {"year": 2020})
        assert file["usage_bytes"] > 0
        store = await get(client, path)
        assert store["file_counts"] == {"in_progress": 0, "completed": 1, "failed": 0, "cancelled": 0, "total": 1}
        assert store["usage_bytes"] == file["usage_bytes"]
        page = await post(client, f"{path}/search", {"query": "What do llamas eat?", "rewrite_query": True})
        assert page["object"] == "vector_store.search_results.page"
        assert page["search_query"] == ["What do llamas eat?"]
        (hit, *_) = page["data"]
        assert (hit["file_id"], hit["filename"], hit["attributes"]) == (id, "llamas.txt", {"year": 2020})
        assert "eat grass" in hit["content"][0]["text"]
        content = await get(client, f"{path}/files/{id}/content")
        assert "Llamas live on the puna." in content["data"][0]["text"]

    serve(tmp_path, check)


def test_search_orders_filters_limits_and_takes_several_queries(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        store = await post(client, "/vector_stores")
        path = f"/vector_stores/{store['id']}"
        ids = {name: await upload(client, text, name) for name, text in (("llamas.txt", LLAMAS), ("ferns.txt", FERNS))}
        files = [{"file_id": id, "attributes": {"name": name}} for name, id in ids.items()]
        batch = await post(client, f"{path}/file_batches", {"files": files})
        await ended(client, f"{path}/file_batches/{batch['id']}")

        async def search(**body: Any) -> list[dict[str, Any]]:
            return (await post(client, f"{path}/search", {"query": "Where do ferns grow?", **body}))["data"]

        hits = await search()
        assert hits[0]["file_id"] == ids["ferns.txt"]
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        assert all(0 <= hit["score"] <= 1 for hit in hits)
        assert len(await search(max_num_results=1)) == 1
        only = {"type": "eq", "key": "name", "value": "llamas.txt"}
        assert {hit["file_id"] for hit in await search(filters=only)} == {ids["llamas.txt"]}
        none = {"type": "and", "filters": [only, {"type": "nin", "key": "name", "value": ["llamas.txt"]}]}
        assert await search(filters=none) == []
        assert {hit["file_id"] for hit in await search(search_mode="keyword")} == {ids["ferns.txt"]}
        assert len(await search(ranking_options={"ranker": "auto", "score_threshold": 1.0})) <= len(hits)
        both = await search(query=["ferns in the shade", "llamas and loads"])
        assert {hit["file_id"] for hit in both} == set(ids.values())

    serve(tmp_path, check)


BAD_SEARCHES: dict[str, dict[str, Any]] = {
    "max_num_results": {"query": "a", "max_num_results": 51},
    "query": {"query": "  "},
    "filters.eq.value": {"query": "a", "filters": {"type": "eq", "key": "a", "value": ["b"]}},
    "ranking_options.score_threshold": {"query": "a", "ranking_options": {"score_threshold": 2}},
    "filters": {"query": "a", "filters": {"type": "like", "key": "a", "value": "b"}},
}


@pytest.mark.parametrize("param", BAD_SEARCHES)
def test_a_wrong_search_is_refused_with_its_field(tmp_path: Path, param: str) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        store = await post(client, "/vector_stores")
        answer = await post(client, f"/vector_stores/{store['id']}/search", BAD_SEARCHES[param], 400)
        assert answer["error"]["param"].startswith(param.split(".")[0])

    serve(tmp_path, check)


def test_files_without_text_fail_with_the_reason(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        store = await post(client, "/vector_stores")
        path = f"/vector_stores/{store['id']}"
        expected = {
            (b"\x00\x01binary", "a.bin"): "unsupported_file",
            (b"  \n ", "a.txt"): "invalid_file",
            (b"no pdf", "a.pdf"): "invalid_file",
        }
        for (content, name), code in expected.items():
            id = await upload(client, content, name)
            await post(client, f"{path}/files", {"file_id": id})
            file = await ended(client, f"{path}/files/{id}")
            assert (file["status"], file["last_error"]["code"]) == ("failed", code)
            assert name in file["last_error"]["message"]
            assert (await get(client, f"{path}/files/{id}/content", 400))["error"]["code"] == "file_not_ready"
        assert (await get(client, path))["file_counts"]["failed"] == 3

    serve(tmp_path, check)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        store = await post(client, "/vector_stores")
        path = f"/vector_stores/{store['id']}"
        for where in ("/vector_stores/vs_none", f"{path}/files/file-none", f"{path}/file_batches/none"):
            assert (await get(client, where, 404))["error"]["code"] == "not_found"
        await get(client, "/vector_stores/vs_none/files", 404)
        await post(client, "/vector_stores/vs_none/search", {"query": "a"}, 404)
        await post(client, f"{path}/files", {"file_id": "file-none"}, 404)
        assert (await client.delete("/vector_stores/vs_none")).status_code == 404

    serve(tmp_path, check)


def test_a_new_store_is_answered_with_its_files_and_says_which_are_not_there(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        server.stack.parts["vector_stores"]._patience = 30
        id = await upload(client)
        store = await post(client, "/vector_stores", {"file_ids": [id, "file-none"]})
        assert store["file_counts"] == {"in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0, "total": 2}
        failed = await get(client, f"/vector_stores/{store['id']}/files", filter="failed")
        assert [file["id"] for file in failed["data"]] == ["file-none"]
        assert failed["data"][0]["last_error"]["code"] == "invalid_file"
        assert (await client.delete(f"/vector_stores/{store['id']}/files/file-none")).status_code == 200

    serve(tmp_path, check)


def test_another_owner_neither_sees_nor_attaches(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        id = await upload(client)
        store = await post(client, "/vector_stores", {"file_ids": [id]})
        path = f"/vector_stores/{store['id']}"
        await ended(client, f"{path}/files/{id}")
        async with as_owner(server, "eve") as eve:
            assert (await get(eve, "/vector_stores"))["data"] == []
            for where in (path, f"{path}/files", f"{path}/files/{id}", f"{path}/files/{id}/content"):
                await get(eve, where, 404)
            await post(eve, path, {"name": "mine"}, 404)
            await post(eve, f"{path}/search", {"query": "llamas"}, 404)
            own = await post(eve, "/vector_stores")
            await post(eve, f"/vector_stores/{own['id']}/files", {"file_id": id}, 404)
            assert (await eve.delete(path)).status_code == 404

    serve(tmp_path, check)


def test_a_store_is_changed_listed_and_deleted_with_its_index(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        id = await upload(client)
        first = await post(client, "/vector_stores", {"name": "one", "file_ids": [id]})
        second = await post(client, "/vector_stores", {"name": "two"})
        path = f"/vector_stores/{first['id']}"
        await ended(client, f"{path}/files/{id}")
        changed = await post(client, path, {"name": "renamed", "metadata": {"k": "v"}})
        assert (changed["name"], changed["metadata"], changed["id"]) == ("renamed", {"k": "v"}, first["id"])
        assert (await post(client, path, {"metadata": None}))["name"] == "renamed"
        page = await get(client, "/vector_stores", limit="1", order="asc")
        assert ([store["id"] for store in page["data"]], page["has_more"]) == ([first["id"]], True)
        page = await get(client, "/vector_stores", order="asc", after=first["id"])
        assert [store["id"] for store in page["data"]] == [second["id"]]
        folder = server.stack.files.folder.parent / "vector_stores"
        assert [file.name for file in folder.glob("*.db")] == [f"{first['id']}.db"]
        answer = (await client.delete(path)).json()
        assert answer == {"id": first["id"], "object": "vector_store.deleted", "deleted": True}
        assert list(folder.iterdir()) == []
        await get(client, path, 404)
        await get(client, f"/files/{id}")

    serve(tmp_path, check)


def test_a_store_expires_after_days_without_use(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        body = {"expires_after": {"anchor": "last_active_at", "days": 2}}
        store = await post(client, "/vector_stores", body)
        path = f"/vector_stores/{store['id']}"
        assert store["expires_at"] == store["last_active_at"] + 2 * 86400
        kept = server.stack.store
        record = kept.get("vector_store", store["id"], "ada")
        assert record is not None
        old = {**record.data, "last_active_at": record.data["last_active_at"] - 3 * 86400}
        kept.put("vector_store", store["id"], old, owner="ada")
        assert (await get(client, path))["status"] == "expired"
        answer = await post(client, f"{path}/search", {"query": "a"}, 400)
        assert answer["error"]["code"] == "vector_store_expired"
        assert (await post(client, path, {"name": "late"}))["status"] == "expired"

    serve(tmp_path, check)


def test_a_use_puts_the_expiry_off(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        store = await post(client, "/vector_stores", {"expires_after": {"anchor": "last_active_at", "days": 2}})
        kept = server.stack.store
        record = kept.get("vector_store", store["id"], "ada")
        assert record is not None
        kept.put(
            "vector_store",
            store["id"],
            {**record.data, "last_active_at": 86400 + int(time.time()) - 2 * 86400},
            owner="ada",
        )
        await post(client, f"/vector_stores/{store['id']}/search", {"query": "a"})
        assert abs((await get(client, f"/vector_stores/{store['id']}"))["last_active_at"] - time.time()) < 10

    serve(tmp_path, check)


def test_chunking_is_as_asked(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        text = b"\n\n".join(b"Paragraph %d speaks of the number %d and of nothing else." % (n, n) for n in range(60))
        static = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20}}
        store = await post(client, "/vector_stores")
        path = f"/vector_stores/{store['id']}"
        id = await upload(client, text, "numbers.txt")
        file = await post(client, f"{path}/files", {"file_id": id, "chunking_strategy": static})
        assert file["chunking_strategy"] == static
        await ended(client, f"{path}/files/{id}")
        hits = (await post(client, f"{path}/search", {"query": "number 7", "max_num_results": 50}))["data"]
        assert len(hits) > 5
        assert max(len(hit["content"][0]["text"]) for hit in hits) <= 400
        bad = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}}
        await post(client, f"{path}/files", {"file_id": id, "chunking_strategy": bad}, 400)
        auto = await post(client, f"{path}/files", {"file_id": id, "chunking_strategy": {"type": "auto"}})
        assert auto["chunking_strategy"]["type"] == "static"
        await ended(client, f"{path}/files/{id}")
        assert (await get(client, path))["file_counts"]["total"] == 1

    serve(tmp_path, check)


def test_attributes_are_changed_and_filtered_by(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        id = await upload(client)
        store = await post(client, "/vector_stores", {"file_ids": [id]})
        path = f"/vector_stores/{store['id']}"
        await ended(client, f"{path}/files/{id}")
        file = await post(client, f"{path}/files/{id}", {"attributes": {"draft": True, "year": 3}})
        assert file["attributes"] == {"draft": True, "year": 3}
        for value, found in ((True, 1), (False, 0), (1, 0)):
            filters = {"type": "eq", "key": "draft", "value": value}
            hits = (await post(client, f"{path}/search", {"query": "llamas", "filters": filters}))["data"]
            assert bool(hits) == bool(found)
        many = {str(n): "x" for n in range(17)}
        await post(client, f"{path}/files/{id}", {"attributes": many}, 400)

    serve(tmp_path, check)


def test_a_detached_or_deleted_file_is_found_no_more(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        first, second = await upload(client), await upload(client, FERNS, "ferns.txt")
        store = await post(client, "/vector_stores", {"file_ids": [first, second]})
        path = f"/vector_stores/{store['id']}"
        for id in (first, second):
            await ended(client, f"{path}/files/{id}")
        answer = (await client.delete(f"{path}/files/{first}")).json()
        assert answer == {"id": first, "object": "vector_store.file.deleted", "deleted": True}
        hits = (await post(client, f"{path}/search", {"query": "llamas ferns"}))["data"]
        assert {hit["file_id"] for hit in hits} == {second}
        await get(client, f"/files/{first}")
        await client.delete(f"/files/{second}")
        assert (await post(client, f"{path}/search", {"query": "llamas ferns"}))["data"] == []
        store = await get(client, path)
        assert (store["file_counts"]["total"], store["usage_bytes"]) == (0, 0)
        assert (await client.delete(f"{path}/files/{second}")).status_code == 404

    serve(tmp_path, check)


def test_files_are_listed_by_page_and_status(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        ids = [await upload(client, b"text %d" % n if n != 1 else b"", f"{n}.txt") for n in range(4)]
        store = await post(client, "/vector_stores", {"file_ids": ids})
        path = f"/vector_stores/{store['id']}"
        for id in ids:
            await ended(client, f"{path}/files/{id}")
        page = await get(client, f"{path}/files", limit="2", order="asc")
        assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[:2], True)
        page = await get(client, f"{path}/files", limit="2", order="asc", after=ids[1])
        assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[2:], False)
        page = await get(client, f"{path}/files", limit="2", order="asc", before=ids[3])
        assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[1:3], True)
        page = await get(client, f"{path}/files", filter="failed")
        assert [file["id"] for file in page["data"]] == [ids[1]]
        await get(client, f"{path}/files", 400, filter="odd")

    serve(tmp_path, check)


def test_a_batch_of_files_counts_its_files_and_those_that_are_not_there(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        ids = [await upload(client), await upload(client, FERNS, "ferns.txt")]
        store = await post(client, "/vector_stores")
        path = f"/vector_stores/{store['id']}"
        await post(client, f"{path}/files", {"file_id": await upload(client, b"other", "other.txt")})
        body = {"file_ids": [*ids, ids[0], "file-none"], "attributes": {"a": 1}}
        batch = await post(client, f"{path}/file_batches", body)
        assert (batch["object"], batch["vector_store_id"]) == ("vector_store.files_batch", store["id"])
        batch = await ended(client, f"{path}/file_batches/{batch['id']}")
        assert batch["status"] == "completed"
        assert batch["file_counts"] == {"in_progress": 0, "completed": 2, "failed": 1, "cancelled": 0, "total": 3}
        page = await get(client, f"{path}/file_batches/{batch['id']}/files", order="asc")
        assert [file["id"] for file in page["data"]] == [*ids, "file-none"]
        assert all(file["attributes"] == {"a": 1} for file in page["data"])
        page = await get(client, f"{path}/file_batches/{batch['id']}/files", filter="failed")
        assert page["data"][0]["last_error"]["code"] == "invalid_file"
        assert (await post(client, f"{path}/file_batches/{batch['id']}/cancel"))["status"] == "completed"
        await post(client, f"{path}/file_batches", {}, 400)

    serve(tmp_path, check)


class Slow(ScriptedProvider):
    """Embeds only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def embed(self, model: str, texts: Any) -> list[list[float]]:
        await self.let.wait()
        return await super().embed(model, texts)


def test_a_file_that_takes_its_time_is_answered_as_in_progress(tmp_path: Path) -> None:
    async def main() -> None:
        slow = Slow()
        async with running(make_stack(tmp_path, slow)) as server, as_owner(server, "ada") as client:
            server.stack.parts["vector_stores"]._patience = 0.2
            store = await post(client, "/vector_stores")
            path = f"/vector_stores/{store['id']}"
            id = await upload(client)
            assert (await post(client, f"{path}/files", {"file_id": id}))["status"] == "in_progress"
            shown = await get(client, path)
            assert (shown["status"], shown["file_counts"]["in_progress"]) == ("in_progress", 1)
            assert (await get(client, f"{path}/files", filter="in_progress"))["data"][0]["id"] == id
            slow.let.set()
            assert (await ended(client, f"{path}/files/{id}"))["status"] == "completed"

    asyncio.run(main())


def test_a_small_file_is_answered_as_completed(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        server.stack.parts["vector_stores"]._patience = 30
        store = await post(client, "/vector_stores")
        file = await post(client, f"/vector_stores/{store['id']}/files", {"file_id": await upload(client)})
        assert file["status"] == "completed"

    serve(tmp_path, check)


def test_a_cancelled_batch_leaves_nothing_in_the_index(tmp_path: Path) -> None:
    async def main() -> None:
        slow = Slow()
        async with running(make_stack(tmp_path, slow)) as server, as_owner(server, "ada") as client:
            ids = [await upload(client, LLAMAS, f"{n}.txt") for n in range(4)]
            store = await post(client, "/vector_stores")
            path = f"/vector_stores/{store['id']}"
            batch = await post(client, f"{path}/file_batches", {"file_ids": ids})
            await asyncio.sleep(0.1)
            batch = await post(client, f"{path}/file_batches/{batch['id']}/cancel")
            assert (batch["status"], batch["file_counts"]["cancelled"]) == ("cancelled", 4)
            slow.let.set()
            until = time.monotonic() + 20
            while server.stack.store.list("work", parent="vector_store_index").records:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            assert (await post(client, f"{path}/search", {"query": "llamas"}))["data"] == []
            assert (await get(client, f"{path}/file_batches/{batch['id']}"))["status"] == "cancelled"
            assert (await get(client, path))["file_counts"]["cancelled"] == 4

    asyncio.run(main())


def test_a_store_that_is_deleted_while_a_file_is_indexed_leaves_no_index(tmp_path: Path) -> None:
    async def main() -> None:
        slow = Slow()
        async with running(make_stack(tmp_path, slow)) as server, as_owner(server, "ada") as client:
            store = await post(client, "/vector_stores", {"file_ids": [await upload(client)]})
            await asyncio.sleep(0.1)
            assert (await client.delete(f"/vector_stores/{store['id']}")).status_code == 200
            slow.let.set()
            until = time.monotonic() + 20
            while server.stack.store.list("work").records:
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            assert list((tmp_path / "vector_stores").iterdir()) == []

    asyncio.run(main())
