"""API keys: made once and shown once, kept as a hash, with an owner, scopes and an end.

A key is "puna-" with its id and 256 random bits, so that a fast hash is enough: nobody guesses what it hashes. The id
in it finds the record without trying all of them. A scope is the first word of a path after its version ("chat",
"files", "responses"), or "*". One key may also come from the settings, so that a server in a container has one from its
first start on; it lasts for as long as it stands there.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from puna.base.errors import ConfigError, InputError
from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.state.store import Record, Store

KIND = "api_key"
_PREFIX = "puna-"
# An owner and a secret of at least 32 characters, as 128 bits in hexadecimal digits have.
_GIVEN = re.compile(r"puna-([A-Za-z0-9_.]{1,64})-([A-Za-z0-9_-]{32,256})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Attributes:
        id: names it, in logs too.
        owner: whose records it opens.
        scopes: what it may call.
        expires: seconds since 1970; 0 for never.
        name: what its owner calls it.
        created: seconds since 1970.
    """

    id: str
    owner: str
    scopes: frozenset[str]
    expires: float
    name: str
    created: float


def create(
    store: Store, owner: str, scopes: Iterable[str] = ("*",), expires: float = 0.0, name: str = ""
) -> tuple[str, ApiKey]:
    """A new key: its text, which nobody can find out again, and what is kept of it."""
    if not owner:
        raise InputError("A key needs an owner.", hint="Give any name: an address, a team.")
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    data = {"hash": _hash(secret), "owner": owner, "scopes": sorted(set(scopes)), "expires": expires, "name": name}
    record = store.insert(KIND, id, data)
    assert record is not None, "48 random bits have come twice"
    return f"{_PREFIX}{id}-{secret}", _key(record)


def adopt(store: Store, text: str) -> None:
    """Makes the key of the settings the only one that ever came from them; "" ends the last.

    Args:
        store: where keys are kept.
        text: "puna-OWNER-SECRET"; it may do everything.

    Raises:
        ConfigError: it has another form. The text is not shown.
    """
    found = _GIVEN.fullmatch(text)
    if text and found is None:
        raise ConfigError(
            f"server.key ({len(text)} characters) is no key: puna-OWNER-SECRET, the secret of 32 or more.",
            hint='Make one: echo "puna-admin-$(openssl rand -hex 32)".',
        )
    id = found[1] if found else ""
    for record in store.list(KIND, limit=10_000).records:
        if record.data.get("given") and record.id != id:
            store.delete(KIND, record.id)
    if found:
        data = {
            "hash": _hash(found[2]),
            "owner": id,
            "scopes": ["*"],
            "expires": 0.0,
            "name": "settings",
            "given": True,
        }
        store.put(KIND, id, data)


def listed(store: Store) -> list[ApiKey]:
    return [_key(record) for record in store.list(KIND, limit=10_000, order="asc").records]


def revoke(store: Store, id: str) -> bool:
    return store.delete(KIND, id)


def verify(store: Store, text: str, now: float | None = None) -> Caller:
    """Who shows this key.

    Raises:
        ApiError: 401 for one that is unknown, altered or has ended; the message is the same for the first two.
    """
    id, _, secret = text.removeprefix(_PREFIX).partition("-")
    record = store.get(KIND, id) if text.startswith(_PREFIX) else None
    kept = record.data["hash"] if record else _hash("")
    if not hmac.compare_digest(_hash(secret), kept) or record is None:
        raise ApiError(401, "The API key is not known here.", code="invalid_api_key")
    key = _key(record)
    if key.expires and (time.time() if now is None else now) >= key.expires:
        raise ApiError(401, "The API key has ended.", code="expired_api_key")
    return Caller(key.owner, key.id, key.scopes)


def allows(caller: Caller, path: str) -> bool:
    """Whether the caller's scopes cover a path."""
    return "*" in caller.scopes or scope_of(path) in caller.scopes


def scope_of(path: str) -> str:
    """The area of a path: "/v1/chat/completions" -> "chat"."""
    parts = [part for part in path.split("/") if part]
    if parts and parts[0] in ("v1", "v1alpha", "v1beta"):
        parts = parts[1:]
    return parts[0] if parts else ""


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(record: Record) -> ApiKey:
    data: dict[str, Any] = dict(record.data)
    return ApiKey(record.id, data["owner"], frozenset(data["scopes"]), data["expires"], data["name"], record.created)
