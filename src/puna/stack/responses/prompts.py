"""Kept prompts (`/v1/prompts`) as the beginning of a response's instructions, with the request's values filled in.

Left out: values that are pictures or files; a prompt is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from puna.stack.errors import invalid, not_found
from puna.stack.state.store import Store

_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def filled(store: Store, owner: str, named: Mapping[str, Any]) -> str:
    """A prompt's text; blocks.

    Args:
        store: where prompts are kept.
        owner: whose prompt it is.
        named: {"id", "version", "variables"}; without a version the default one.

    Raises:
        ApiError: 404 for an unknown prompt or version, 400 for a value that is missing or no text.
    """
    id, version, values = named.get("id"), named.get("version"), named.get("variables") or {}
    if not isinstance(id, str) or not isinstance(values, Mapping):
        raise invalid("A prompt is named by its id, with variables as an object.", "prompt")
    head = store.get("prompt", id, owner)
    if head is None:
        raise not_found("prompt", id, "prompt.id")
    number = head.data["default"] if version is None else version
    kept = store.get("prompt_version", f"{id}:{number}", owner)
    if kept is None:
        raise not_found("version of the prompt", str(number), "prompt.version")

    def value(match: re.Match[str]) -> str:
        found = values.get(match[1])
        if isinstance(found, Mapping) and found.get("type") == "input_text":
            found = found.get("text")
        if not isinstance(found, str):
            raise invalid(f"The prompt's variable {match[1]!r} needs a text.", f"prompt.variables.{match[1]}")
        return found

    return _VARIABLE.sub(value, kept.data["prompt"])
