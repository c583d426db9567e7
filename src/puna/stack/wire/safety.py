"""Bodies of shields, run-shield and moderations."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from puna.stack.wire.base import Wire


class ShieldBody(Wire):
    """Registers a shield."""

    shield_id: str
    provider_id: str | None = None
    provider_shield_id: str | None = None
    params: dict[str, Any] | None = None


class RunShieldBody(Wire):
    """Asks a shield about the last of some messages."""

    shield_id: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    params: dict[str, Any] | None = None


class ModerationBody(Wire):
    """OpenAI's moderation request."""

    input: str | list[str | dict[str, Any]]
    model: str | None = None
