"""/v1/files over the whole application: upload, purposes, expiry, lists, content, deletion, owners."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from puna.stack.context import Caller
from puna.stack.testing import RunningServer, make_stack, running

Check = Callable[[httpx.AsyncClient, RunningServer], Awaitable[None]]


def as_owner(server: RunningServer, owner: str) -> httpx.AsyncClient:
    return server.client(Caller(owner), "/v1", raises=True)


def serve(folder: Path, check: Check) -> None:
    async def main() -> None:
        async with running(make_stack(folder)) as server, as_owner(server, "ada") as client:
            await check(client, server)

    asyncio.run(main())


async def upload(
    client: httpx.AsyncClient, content: bytes = b"abc", name: str = "a.txt", **fields: Any
) -> dict[str, Any]:
    answer = await client.post("/files", files={"file": (name, content)}, data={"purpose": "assistants", **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_uploaded_file_is_listed_read_and_deleted(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        file = await upload(client, b"\x00\xff any bytes", "böse name's.html")
        assert file["object"] == "file"
        assert (file["bytes"], file["purpose"], file["status"]) == (12, "assistants", "processed")
        assert file["filename"] == "böse name's.html"
        assert (await client.get(f"/files/{file['id']}")).json() == file
        listed = (await client.get("/files")).json()
        assert listed["data"] == [file]
        assert (listed["first_id"], listed["has_more"]) == (file["id"], False)
        content = await client.get(f"/files/{file['id']}/content")
        assert content.content == b"\x00\xff any bytes"
        deleted = (await client.delete(f"/files/{file['id']}")).json()
        assert deleted == {"id": file["id"], "object": "file", "deleted": True}
        for path in ("", "/content"):
            assert (await client.get(f"/files/{file['id']}{path}")).status_code == 404
        assert (await client.delete(f"/files/{file['id']}")).status_code == 404

    serve(tmp_path, check)


def test_an_uploaded_page_is_never_shown_as_one(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        file = await upload(client, b"<script>alert(1)</script>", "page.html")
        headers = (await client.get(f"/files/{file['id']}/content")).headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment")
        assert headers["x-content-type-options"] == "nosniff"

    serve(tmp_path, check)


def test_another_owners_file_is_not_found(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        file = await upload(client)
        async with as_owner(server, "eve") as eve:
            for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
                answer = await eve.request(method, f"/files/{file['id']}{path}")
                assert answer.status_code == 404
                assert answer.json()["error"]["code"] == "not_found"
            assert (await eve.get("/files")).json()["data"] == []
        assert (await client.get(f"/files/{file['id']}")).status_code == 200

    serve(tmp_path, check)


REFUSED = {
    "purpose": {"purpose": "batch_output"},
    "expires_after[anchor]": {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
    "expires_after[seconds]": {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
    "expires_after": {"expires_after[seconds]": "3600"},
}
ODD_EXPIRIES = ["soon", "{}", '{"anchor": "created_at"}', "7200"]


@pytest.mark.parametrize("given", ODD_EXPIRIES)
def test_an_expiry_that_is_none_is_refused(tmp_path: Path, given: str) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        fields = {"purpose": "assistants", "expires_after": given}
        answer = await client.post("/files", files={"file": ("a.txt", b"abc")}, data=fields)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_after")

    serve(tmp_path, check)


@pytest.mark.parametrize("param", REFUSED)
def test_a_wrong_field_is_named(tmp_path: Path, param: str) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        fields = {"purpose": "assistants", **REFUSED[param]}
        answer = await client.post("/files", files={"file": ("a.txt", b"abc")}, data=fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert not server.stack.files.folder.exists()

    serve(tmp_path, check)


def test_a_missing_file_or_purpose_is_named(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        answer = await client.post("/files", data={"purpose": "assistants"}, files={"other": ("a", b"a")})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
        answer = await client.post("/files", files={"file": ("a.txt", b"abc")})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "purpose")

    serve(tmp_path, check)


def test_a_file_that_expires_says_when(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
        file = await upload(client, **fields)
        assert abs(file["expires_at"] - time.time() - 7200) < 10
        file = await upload(client, expires_after='{"anchor": "created_at", "seconds": 7200}')
        assert file["expires_at"] == file["created_at"] + 7200
        assert (await upload(client))["expires_at"] is None

    serve(tmp_path, check)


def test_lists_go_page_by_page_and_by_purpose(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        ids = [(await upload(client, purpose="evals" if n == 2 else "batch"))["id"] for n in range(4)]
        seen, after = [], None
        while True:
            params = {"limit": "2", "order": "asc", **({"after": after} if after else {})}
            page = (await client.get("/files", params=params)).json()
            seen += [file["id"] for file in page["data"]]
            if not page["has_more"]:
                break
            after = page["last_id"]
        assert seen == ids
        listed = (await client.get("/files", params={"purpose": "evals"})).json()
        assert [file["id"] for file in listed["data"]] == [ids[2]]
        assert (await client.get("/files", params={"limit": "0"})).status_code == 400
        assert (await client.get("/files", params={"after": "file-none"})).status_code == 404

    serve(tmp_path, check)


def test_a_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        server.stack.files.max_bytes = 10
        answer = await client.post("/files", files={"file": ("a", b"x" * 11)}, data={"purpose": "batch"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
        assert list(server.stack.files.folder.iterdir()) == []

    serve(tmp_path, check)


@pytest.mark.parametrize("id", ["..%2Fstack.db", "%00", "a%2Fb", "💥"])
def test_an_odd_id_is_no_file(tmp_path: Path, id: str) -> None:
    async def check(client: httpx.AsyncClient, server: RunningServer) -> None:
        assert (await client.get(f"/files/{id}/content")).status_code == 404

    serve(tmp_path, check)
