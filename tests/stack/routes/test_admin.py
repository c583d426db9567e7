"""The admin paths are the same as those of `inspect`."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("path", ["health", "version", "providers", "providers/scripted", "inspect/routes"])
def test_both_paths_answer_the_same(serve: Any, path: str) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        here, there = await client.get(f"/v1alpha/admin/{path}"), await client.get(f"/v1/{path}")
        assert here.status_code == 200
        assert here.json() == there.json()

    serve(scenario)
