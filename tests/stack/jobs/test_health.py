"""What the server says of itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import pytest

from puna.stack.jobs.health import HIDDEN, health, masked, masked_text, providers
from puna.stack.providers.provider import Health
from puna.stack.safety.guard import guard_of
from puna.stack.testing import ScriptedProvider, make_stack


class Sick(ScriptedProvider):
    """A provider that does not work, and tells too much."""

    shown_config: ClassVar = {
        "url": "https://me:pw@host/v1?key=abc",
        "api_key": "sk-abcdef123",
        "timeout": 3,
        "max_tokens": 5,
    }

    async def health(self) -> Health:
        return Health(False, "https://me:pw@host/v1?key=abc refused Bearer abcdef and api_key=zzz")


class Broken(ScriptedProvider):
    """A provider whose health cannot be asked for."""

    async def health(self) -> Health:
        raise RuntimeError("the password is pw")


def test_degraded_parts_are_named_and_nothing_secret_is_said(tmp_path: Path) -> None:
    async def go() -> None:
        stack = make_stack(tmp_path, ScriptedProvider("well"), Sick("sick"), Broken("broken"))
        guard_of(stack).degraded["owner/shield"] = "failed"
        found = await health(stack)
        assert found["status"] == "OK"
        assert found["parts"]["provider well"] == "OK"
        assert sorted(found["degraded"]) == ["provider broken", "provider sick", "safety"]
        said = str(found) + str(await providers(stack))
        for secret in ("pw", "abc", "zzz", "owner"):
            assert secret not in said
        assert "https://host/v1" in said

    asyncio.run(go())


def test_a_server_without_a_working_provider_or_store_does_not_work(tmp_path: Path) -> None:
    async def go() -> None:
        assert (await health(make_stack(tmp_path, Sick("sick"))))["status"] == "Error"
        stack = make_stack(tmp_path)

        def get(*args: Any) -> None:
            raise OSError("disk")

        stack.store.get = get  # type: ignore[method-assign]
        found = await health(stack)
        assert (found["status"], found["parts"]["store"]) == ("Error", "degraded")

    asyncio.run(go())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            {"api_key": "x", "n": 1, "max_tokens": 5, "empty_token": ""},
            {"api_key": HIDDEN, "n": 1, "max_tokens": 5, "empty_token": ""},
        ),
        ({"a": [{"password": "x"}]}, {"a": [{"password": HIDDEN}]}),
        (
            {"headers": {"Authorization": "x", "X-Api-Key": ["a"]}},
            {"headers": {"Authorization": HIDDEN, "X-Api-Key": HIDDEN}},
        ),
        ({"url": "postgres://u:p@h:5/d?x=1"}, {"url": "postgres://h:5/d"}),
    ],
)
def test_configurations_are_masked(value: Any, shown: Any) -> None:
    assert masked(value) == shown


def test_messages_are_masked() -> None:
    assert masked_text("got sk-1234567890 back") == f"got {HIDDEN} back"
    assert masked_text("no secret here") == "no secret here"
