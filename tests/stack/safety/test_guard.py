"""The guard fails closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from puna.core.chat import Message
from puna.core.verdict import Verdict
from puna.stack.errors import ApiError
from puna.stack.safety.guard import Guard, guard_of, violation
from puna.stack.safety.shields import SHIELDS
from puna.stack.testing import make_stack

ASK = [Message("user", "hello")]
RELEASE = threading.Event()


class Odd:
    """A shield that does what its parameters say."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.does = params["does"]

    def check(self, messages: list[Message]) -> Any:
        del messages
        if self.does == "raise":
            raise RuntimeError("broken")
        if self.does == "exit":
            raise SystemExit
        if self.does == "hang":
            RELEASE.wait(20)
        return {"nan": Verdict(True, scores={"a": float("nan")}), "nothing": None}.get(self.does, Verdict(True))


if "odd" not in SHIELDS:
    SHIELDS.add("odd", Odd)


async def registered(guard: Guard, does: str) -> str:
    await guard.register("", does, "odd", None, {"does": does})
    return does


@pytest.mark.parametrize("does", ["raise", "exit", "nan", "nothing"])
def test_a_shield_that_gives_no_verdict_blocks(tmp_path: Path, does: str) -> None:
    async def go() -> None:
        guard = Guard(make_stack(tmp_path))
        verdict = await guard.check("", await registered(guard, does), ASK)
        assert not verdict.allowed
        assert verdict.hazards == ("unchecked",)
        assert len(guard.degraded) == 1
        await guard.delete("", does)
        assert guard.degraded == {}

    asyncio.run(go())


def test_a_shield_that_hangs_blocks_in_time_and_is_not_asked_for_ever(tmp_path: Path) -> None:
    async def go() -> None:
        guard = Guard(make_stack(tmp_path), seconds=0.05)
        shield = await registered(guard, "hang")
        before = threading.active_count()
        verdicts = [await guard.check("", shield, ASK) for _ in range(8)]
        assert not any(verdict.allowed for verdict in verdicts)
        assert threading.active_count() - before <= 4
        RELEASE.set()
        await asyncio.sleep(0.2)
        assert (await guard.check("", shield, ASK)).allowed
        assert guard.degraded == {}

    asyncio.run(go())


def test_an_unknown_shield_is_a_404_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(ApiError) as refused:
        asyncio.run(Guard(make_stack(tmp_path)).check("", "none", ASK))
    assert refused.value.status == 404


def test_owners_have_shields_of_their_own_by_the_same_name(tmp_path: Path) -> None:
    async def go() -> None:
        guard = guard_of(make_stack(tmp_path))
        for owner, word in (("a", "red"), ("b", "blue")):
            await guard.register(owner, "mine", None, None, {"patterns": {"word": word}})
        assert not (await guard.check("a", "mine", [Message("user", "red")])).allowed
        assert (await guard.check("b", "mine", [Message("user", "red")])).allowed
        await guard.delete("a", "mine")
        assert [shield["identifier"] for shield in await guard.list("b")] == ["mine"]
        assert await guard.list("a") == []

    asyncio.run(go())


def test_a_shield_that_is_changed_judges_by_its_new_parameters(tmp_path: Path) -> None:
    async def go() -> None:
        guard = Guard(make_stack(tmp_path))
        for word in ("red", "blue"):
            await guard.register("", "s", "inline::regex", None, {"patterns": {"word": word}})
        assert (await guard.check("", "s", [Message("user", "red")])).allowed

    asyncio.run(go())


def test_kinds_are_found_by_the_clients_names(tmp_path: Path) -> None:
    async def go() -> None:
        guard = Guard(make_stack(tmp_path))
        for id, kind, status in (
            ("meta-llama/Llama-Guard-3-8B", None, 501),
            ("x", "inline::no-such", 400),
            ("x", None, 400),
        ):
            with pytest.raises(ApiError) as refused:
                await guard.register("", id, kind, None, {})
            assert refused.value.status == status
        with pytest.raises(ApiError) as refused:
            await guard.default("")
        assert refused.value.status == 501

    asyncio.run(go())


def test_a_violation_in_the_llama_stacks_form() -> None:
    assert violation("s", Verdict(True)) is None
    found = violation("s", Verdict(False, ("S1",), {"S1": 0.9}, "No."))
    assert found is not None
    assert (found["violation_level"], found["user_message"]) == ("error", "No.")
    assert found["metadata"] == {"shield_id": "s", "hazards": ["S1"], "scores": {"S1": 0.9}, "violation_type": "S1"}
