"""What the server says of itself: its parts and whether they work, its providers, its routes. Never a secret.

A provider's configuration is shown with every value hidden whose name tells of a secret, and addresses without the
credentials and queries that they may bear; the same holds for what a failing part says.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from puna.stack.context import Stack
from puna.stack.providers.provider import Provider
from puna.stack.safety.guard import guard_of
from puna.stack.safety.shields import SHIELDS
from puna.stack.state.store import run

HIDDEN = "********"
_SECRET = re.compile(r"(?i)key|secret|token|password|passwd|credential|authorization|cookie|dsn")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*://)(?:[^\s/@]*@)?([^\s?#\"']*)(?:\?[^\s\"']*)?")
_BEARER = re.compile(r"(?i)\b(?:bearer\s+\S+|sk-[\w-]{6,}|[\w-]*(?:key|token|secret|password)\s*[=:]\s*\S+)")
_SECONDS = 5.0
# The server's own parts: API -> type.
_OWN = {
    "safety": "inline::shields",
    "scoring": "inline::basic",
    "eval": "inline::puna",
    "datasetio": "inline::store",
    "post_training": "inline::puna",
    "tool_runtime": "inline::puna",
    "agents": "inline::puna",
    "files": "inline::folder",
    "vector_io": "inline::library",
}
# The beginning of a path below its version -> API.
_APIS = {
    "shields": "safety",
    "moderations": "safety",
    "scoring-functions": "scoring",
    "datasets": "datasetio",
    "post-training": "post_training",
    "tools": "tool_runtime",
    "toolgroups": "tool_runtime",
    "tool-runtime": "tool_runtime",
    "vector_stores": "vector_io",
    "vector-io": "vector_io",
    "chat": "inference",
    "completions": "inference",
    "embeddings": "inference",
    "models": "inference",
    "responses": "inference",
}


def masked_text(text: str) -> str:
    """A message without credentials."""
    return _BEARER.sub(HIDDEN, _ADDRESS.sub(r"\1\2", text))


def masked(value: Any, name: str = "") -> Any:
    """A configuration without secrets."""
    if name and _SECRET.search(name) and value not in (None, "", False, True) and not isinstance(value, (int, float)):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item, name) for item in value]
    return masked_text(value) if isinstance(value, str) else value


async def provider_health(provider: Provider) -> tuple[bool, str]:
    """Whether a provider works, and what it says; one that does not answer does not work."""
    try:
        health = await asyncio.wait_for(provider.health(), _SECONDS)
    except TimeoutError:
        return False, f"It did not answer within {_SECONDS:g} s."
    except Exception as error:
        return False, f"It failed: {type(error).__name__}."
    return health.ok, masked_text(health.message)


async def health(stack: Stack) -> dict[str, Any]:
    """{"status", "parts", "degraded"}: the server works while its store does, and some provider."""
    parts, degraded = {}, {}
    found = await asyncio.gather(*(provider_health(provider) for provider in stack.providers.values()))
    for id, (ok, message) in zip(stack.providers, found, strict=True):
        parts[f"provider {id}"] = "OK" if ok else "degraded"
        if not ok:
            degraded[f"provider {id}"] = message or "It says that it does not work."
    store_works = True
    try:
        await run(stack.store.get, "health", "health")
    except Exception as error:
        store_works = False
        degraded["store"] = f"It failed: {type(error).__name__}."
    parts["store"] = "OK" if store_works else "degraded"
    if failing := guard_of(stack).degraded:
        # Which shields, and whose, is nobody else's business.
        degraded["safety"] = f"{len(failing)} of the shields did not answer; what they guard is blocked."
    parts["safety"] = "degraded" if failing else "OK"
    usable = store_works and (not stack.providers or any(ok for ok, _ in found))
    return {"status": "OK" if usable else "Error", "parts": parts, "degraded": degraded}


async def providers(stack: Stack) -> list[dict[str, Any]]:
    """All providers of all APIs."""
    found = await asyncio.gather(*(provider_health(provider) for provider in stack.providers.values()))
    rows = []
    for provider, (ok, message) in zip(stack.providers.values(), found, strict=True):
        config = masked(getattr(provider, "shown_config", None) or {})
        status = {"status": "OK" if ok else "Error", "message": message}
        rows.append(_row("inference", provider.id, provider.type, config, status))
    own = {"status": "OK", "message": ""}
    for api, type in _OWN.items():
        config = {"kinds": list(SHIELDS)} if api == "safety" else {}
        if api != "vector_io" or "vector_stores" in stack.parts:
            rows.append(_row(api, "puna", type, config, own))
    return rows


def _row(api: str, id: str, type: str, config: Any, status: Mapping[str, str]) -> dict[str, Any]:
    return {"api": api, "provider_id": id, "provider_type": type, "config": config, "health": dict(status)}


def routes(document: Mapping[str, Any], stack: Stack) -> list[dict[str, Any]]:
    """Every route of an OpenAPI document with its method, and the types of what serves it."""
    rows = []
    inference = sorted({provider.type for provider in stack.providers.values()})
    for path, methods in document["paths"].items():
        below = path.strip("/").split("/")
        area = below[1] if len(below) > 1 and below[0].startswith("v1") else below[0]
        api = _APIS.get(area, area)
        types = inference if api == "inference" else [_OWN[api]] if api in _OWN else []
        rows += [{"route": path, "method": method.upper(), "provider_types": types} for method in methods]
    return sorted(rows, key=lambda row: (row["route"], row["method"]))
