"""Answers about the server are what their models say."""

from __future__ import annotations

import asyncio
from pathlib import Path

from puna.stack.jobs.health import health, providers
from puna.stack.testing import make_stack
from puna.stack.wire.admin import HealthInfo, ProviderList, RouteList, VersionInfo


def test_answers_fit_their_models(tmp_path: Path) -> None:
    async def go() -> None:
        stack = make_stack(tmp_path)
        answer = await health(stack)
        assert HealthInfo.model_validate(answer).model_dump() == answer
        rows = {"data": await providers(stack)}
        assert ProviderList.model_validate(rows).model_dump() == rows

    asyncio.run(go())
    assert VersionInfo(version="1").model_dump() == {"version": "1"}
    assert RouteList.model_validate({"data": []}).data == []
