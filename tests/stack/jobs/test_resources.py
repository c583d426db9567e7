"""Resources that clients name."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.stack.errors import ApiError
from puna.stack.jobs.resources import Resources, key
from puna.stack.testing import make_stack


def test_names_belong_to_their_owner(tmp_path: Path) -> None:
    async def go() -> None:
        resources = Resources(make_stack(tmp_path), "benchmark", {"there": {"identifier": "there"}})
        await resources.register("a", "mine", {"identifier": "mine", "of": "a"})
        await resources.register("b", "mine", {"identifier": "mine", "of": "b"})
        assert (await resources.get("a", "mine"))["of"] == "a"
        assert (await resources.get("b", "mine"))["of"] == "b"
        assert [found["identifier"] for found in await resources.list("a")] == ["there", "mine"]
        with pytest.raises(ApiError) as refused:
            await resources.get("c", "mine")
        assert refused.value.status == 404
        await resources.delete("a", "mine")
        assert (await resources.get("b", "mine"))["of"] == "b"
        with pytest.raises(ApiError):
            await resources.delete("a", "mine")

    asyncio.run(go())


@pytest.mark.parametrize("name", ["", "  ", "a\x1fb", "x" * 300, "there"])
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    resources = Resources(make_stack(tmp_path), "benchmark", {"there": {}})
    with pytest.raises(ApiError) as refused:
        asyncio.run(resources.register("", name, {}))
    assert refused.value.status == 400


def test_owners_keys_differ() -> None:
    assert key("", "x") == "x"
    assert len({key("", "x"), key("a", "x"), key("b", "x")}) == 3
