"""Bodies of prompts."""

from __future__ import annotations

from pydantic import Field

from puna.stack.wire.base import Wire


class PromptBody(Wire):
    """A new prompt, whose {{ variables }} are named."""

    prompt: str = Field(min_length=1)
    variables: list[str] = Field(default_factory=list)


class PromptUpdate(PromptBody):
    """The next version of a prompt; `version` is the one that was read."""

    version: int = Field(ge=1)
    set_as_default: bool = True


class DefaultVersion(Wire):
    """Which version is meant where none is named."""

    version: int = Field(ge=1)
