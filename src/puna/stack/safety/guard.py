"""`Guard`: runs the shields of an owner, and blocks where one cannot say that something may pass.

A shield that raises, that answers no verdict or that does not answer in time blocks, with the hazard "unchecked". One
that hangs keeps its thread; when several of its calls hang it is not asked again until one of them comes back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from puna.base.files import hash_json
from puna.core.chat import Message
from puna.core.protocols import Shield
from puna.core.verdict import Verdict
from puna.stack.context import Stack
from puna.stack.errors import invalid, not_implemented
from puna.stack.jobs.resources import Resources
from puna.stack.safety.shields import SHIELDS

UNCHECKED = "unchecked"
_log = logging.getLogger(__name__)
_MOST_HANGING = 4
_MOST_KEPT = 256  # shields ready to be asked


class Guard:
    """Args:
    stack: the server's parts.
    seconds: that a shield may take.
    """

    def __init__(self, stack: Stack, seconds: float = 10.0) -> None:
        self._resources = Resources(stack, "shield")
        self._seconds = seconds
        self._made: dict[str, Shield] = {}
        self._hanging: Counter[str] = Counter()
        self.degraded: dict[str, str] = {}  # shield -> why its last call gave no verdict

    async def register(
        self, owner: str, id: str, kind: str | None, resource: str | None, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keeps a shield; it must be possible to make it.

        Args:
            owner: whose it is.
            id: its name.
            kind: of shield, such as "regex" or "inline::regex"; None guesses from the name and the parameters.
            resource: the provider's own name for it.
            params: of the shield.
        """
        kind = _kind(kind, resource or id, params)
        self._make(kind, params)
        resource = resource or id
        data = {"identifier": id, "provider_id": kind, "provider_resource_id": resource, "type": "shield"}
        self.degraded.pop(f"{owner}/{id}", None)
        return await self._resources.register(owner, id, data | {"params": dict(params)})

    async def list(self, owner: str) -> list[dict[str, Any]]:
        return await self._resources.list(owner)

    async def get(self, owner: str, id: str) -> dict[str, Any]:
        return await self._resources.get(owner, id, "shield_id")

    async def delete(self, owner: str, id: str) -> None:
        await self._resources.delete(owner, id)
        self.degraded.pop(f"{owner}/{id}", None)

    async def default(self, owner: str) -> str:
        """The shield that moderation uses where the request names none: the owner's first.

        Raises:
            ApiError: 501 where there is none.
        """
        shields = await self.list(owner)
        if not shields:
            raise not_implemented("This server has no guard: register a shield (POST /v1/shields) and ask again.")
        return shields[0]["identifier"]

    async def hazards(self, owner: str, id: str) -> tuple[str, ...]:
        """All hazards that a shield looks for, where it says so."""
        data = await self.get(owner, id)
        return tuple(getattr(self._shield(data["provider_id"], data["params"]), "hazards", ()))

    async def check(self, owner: str, id: str, messages: Sequence[Message]) -> Verdict:
        """A shield's verdict on the last message; a shield that fails blocks.

        Raises:
            ApiError: 404 for an unknown shield.
        """
        data = await self.get(owner, id)
        name = f"{owner}/{id}"
        if self._hanging[name] >= _MOST_HANGING:
            return self._blocked(name, id, "does not answer")
        try:
            shield = self._shield(data["provider_id"], data["params"])
            verdict = await asyncio.wait_for(self._ask(name, shield, tuple(messages)), self._seconds)
        except TimeoutError:
            return self._blocked(name, id, f"did not answer within {self._seconds:g} s")
        except Exception as error:
            _log.warning("the shield %s failed", id, exc_info=error)
            return self._blocked(name, id, "failed")
        if not isinstance(verdict, Verdict) or any(math.isnan(score) for score in verdict.scores.values()):
            return self._blocked(name, id, "gave no verdict")
        self.degraded.pop(name, None)
        return verdict

    def _blocked(self, name: str, id: str, what: str) -> Verdict:
        self.degraded[name] = what
        return Verdict(False, (UNCHECKED,), reason=f"The shield {id!r} {what}; nothing passes unchecked.")

    async def _ask(self, name: str, shield: Shield, messages: Sequence[Message]) -> Any:
        """The shield's answer, from a thread of its own: one that hangs must not hold up the others."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            self._hanging[name] -= 1
            if answer.done():
                return
            if error is None:
                answer.set_result(value)
            else:
                answer.set_exception(error)

        def work() -> None:
            value, error = None, None
            try:
                value = shield.check(messages)
            except BaseException as raised:
                error = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, value, error)

        self._hanging[name] += 1
        threading.Thread(target=work, name=f"shield {name}", daemon=True).start()
        return await answer

    def _shield(self, kind: str, params: Mapping[str, Any]) -> Shield:
        name = hash_json([kind, params])
        if name not in self._made:
            if len(self._made) >= _MOST_KEPT:
                self._made.pop(next(iter(self._made)))
            self._made[name] = self._make(kind, params)
        return self._made[name]

    @staticmethod
    def _make(kind: str, params: Mapping[str, Any]) -> Shield:
        return SHIELDS.get(kind)(params)


def _kind(kind: str | None, name: str, params: Mapping[str, Any]) -> str:
    """Which kind of shield is meant; clients of the Llama Stack say "inline::llama-guard", or nothing at all."""
    if kind:
        short = kind.rpartition("::")[2]
        if short not in SHIELDS:
            raise invalid(f"There is no shield kind {kind!r}. Known: {', '.join(SHIELDS)}.", "provider_id")
        return short
    if "llama-guard" in name.lower().replace("_", "-"):
        return "llama-guard"
    if "patterns" in params:
        return "regex"
    raise invalid(f"Say which kind of shield {name!r} is. Known: {', '.join(SHIELDS)}.", "provider_id")


def violation(id: str, verdict: Verdict) -> dict[str, Any] | None:
    """A verdict in the Llama Stack's form; None where it lets the message pass."""
    if verdict.allowed:
        return None
    metadata = {"shield_id": id, "hazards": list(verdict.hazards), "scores": dict(verdict.scores)}
    if verdict.hazards:
        metadata["violation_type"] = verdict.hazards[0]
    return {"violation_level": "error", "user_message": verdict.reason, "metadata": metadata}


def guard_of(stack: Stack) -> Guard:
    """The server's guard, made when it is first asked for."""
    return stack.part("guard", Guard)
