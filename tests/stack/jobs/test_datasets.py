"""Datasets and their rows."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from puna.stack.errors import ApiError
from puna.stack.jobs.datasets import Datasets, parse
from puna.stack.testing import make_stack

PURPOSE = "eval/question-answer"


def test_rows_come_in_their_order_and_in_pages(tmp_path: Path) -> None:
    async def go() -> None:
        datasets = Datasets(make_stack(tmp_path))
        await datasets.register("", "d", PURPOSE, {"rows": [{"n": n} for n in range(5)]}, {"about": "numbers"})
        await datasets.append("", "d", [{"n": 5}, {"n": 6}])
        assert [row["n"] for row in await datasets.rows("", "d")] == list(range(7))
        assert [row["n"] for row in await datasets.rows("", "d", 2)] == [0, 1]
        assert await datasets.page("", "d", 0, 3) == ([{"n": 0}, {"n": 1}, {"n": 2}], True)
        assert await datasets.page("", "d", 5, 3) == ([{"n": 5}, {"n": 6}], False)
        assert await datasets.page("", "d", 7, 3) == ([], False)
        assert (await datasets.get("", "d"))["row_count"] == 7

    asyncio.run(go())


def test_appends_at_once_lose_no_row(tmp_path: Path) -> None:
    async def go() -> None:
        datasets = Datasets(make_stack(tmp_path))
        await datasets.register("", "d", PURPOSE, {"rows": []}, {})
        await asyncio.gather(*(datasets.append("", "d", [{"n": n}, {"n": n}]) for n in range(8)))
        rows = [row["n"] for row in await datasets.rows("", "d")]
        assert sorted(rows) == sorted([*range(8), *range(8)])
        assert rows[::2] == rows[1::2]

    asyncio.run(go())


def test_registering_again_replaces_and_owners_are_apart(tmp_path: Path) -> None:
    async def go() -> None:
        datasets = Datasets(make_stack(tmp_path))
        for owner, rows in (("a", [{"x": 1}]), ("b", [{"x": 2}]), ("a", [{"x": 3}])):
            await datasets.register(owner, "d", PURPOSE, {"rows": rows}, {})
        assert await datasets.rows("a", "d") == [{"x": 3}]
        assert await datasets.rows("b", "d") == [{"x": 2}]
        await datasets.delete("a", "d")
        assert await datasets.rows("b", "d") == [{"x": 2}]
        for call in (datasets.rows("a", "d"), datasets.append("a", "d", []), datasets.delete("a", "d")):
            with pytest.raises(ApiError) as refused:
                await call
            assert refused.value.status == 404

    asyncio.run(go())


def test_uploaded_files_and_data_uris_are_read(tmp_path: Path) -> None:
    async def go() -> None:
        stack = make_stack(tmp_path)
        datasets = Datasets(stack)

        async def bytes_of() -> AsyncIterator[bytes]:
            yield b'{"a": 1}\n\n{"a": 2}\n'

        await stack.files.write("file-1", bytes_of())
        stack.store.insert("file", "file-1", {"filename": "x.jsonl"}, owner="me")
        for uri in ("file-1", "puna://files/file-1"):
            await datasets.register("me", "d", PURPOSE, {"uri": uri}, {})
            assert await datasets.rows("me", "d") == [{"a": 1}, {"a": 2}]
        with pytest.raises(ApiError) as refused:
            await datasets.register("you", "d", PURPOSE, {"uri": "file-1"}, {})
        assert refused.value.status == 404
        encoded = base64.b64encode(b"q,a\nx,y\n").decode()
        await datasets.register("me", "e", PURPOSE, {"uri": f"data:text/csv;base64,{encoded}"}, {})
        assert await datasets.rows("me", "e") == [{"q": "x", "a": "y"}]

    asyncio.run(go())


def test_the_servers_own_files_are_closed_but_for_one_folder(tmp_path: Path) -> None:
    opened, secret = tmp_path / "open", tmp_path / "secret.jsonl"
    opened.mkdir()
    (opened / "d.jsonl").write_text('{"a": 1}')
    secret.write_text('{"secret": 1}')

    async def go() -> None:
        stack = make_stack(tmp_path / "state")
        with pytest.raises(ApiError) as refused:
            await Datasets(stack).register("", "d", PURPOSE, {"uri": f"file://{opened}/d.jsonl"}, {})
        assert refused.value.status == 403
        datasets = Datasets(stack, opened)
        for uri in (f"file://{opened}/d.jsonl", "file:///d.jsonl"):
            await datasets.register("", "d", PURPOSE, {"uri": uri}, {})
            assert await datasets.rows("", "d") == [{"a": 1}]
        for uri in (f"file://{secret}", f"file://{opened}/../secret.jsonl", "file:///%2e%2e/secret.jsonl"):
            with pytest.raises(Exception, match=r"leads out|was not found"):
                await datasets.register("", "e", PURPOSE, {"uri": uri}, {})
        for uri in ("https://example.org/x", "huggingface://datasets/x"):
            with pytest.raises(ApiError) as refused:
                await datasets.register("", "e", PURPOSE, {"uri": uri}, {})
            assert refused.value.status == 501

    asyncio.run(go())


@pytest.mark.parametrize(
    ("content", "name", "rows"),
    [
        (b'[{"a": 1}, {"a": 2}]', "x.json", [{"a": 1}, {"a": 2}]),
        ('\ufeffa,b\n1,"x\ny"\n'.encode(), "x.CSV", [{"a": "1", "b": "x\ny"}]),
        (b"", "x.jsonl", []),
    ],
)
def test_forms_of_files(content: bytes, name: str, rows: list) -> None:
    assert list(parse(content, name)) == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a": 1}\n{', "line 2"), (b"[1]", "Row 1 is no object"), (b'"x"', "Row 1"), (b"\xff", "not UTF-8")],
)
def test_broken_files_are_named_by_line(content: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        list(parse(content, "x.jsonl"))
