"""Keys: shown once, kept as a hash, ended when they are told to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from puna.base.errors import ConfigError, InputError
from puna.stack.context import Caller
from puna.stack.errors import ApiError
from puna.stack.operation import keys
from puna.stack.state.sqlite import SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "stack.db")


def test_a_key_says_whose_it_is(store: SqliteStore) -> None:
    text, key = keys.create(store, "ana", ["chat", "files"], name="laptop")
    caller = keys.verify(store, text)
    assert (caller.owner, caller.key_id, caller.scopes) == ("ana", key.id, {"chat", "files"})
    assert keys.listed(store) == [key]


def test_the_secret_is_nowhere_on_the_disk(store: SqliteStore, tmp_path: Path) -> None:
    text, _ = keys.create(store, "ana")
    secret = text.split("-", 2)[2]
    store.close()
    assert all(secret.encode() not in path.read_bytes() for path in tmp_path.iterdir())
    record = SqliteStore(tmp_path / "stack.db").list(keys.KIND).records[0]
    assert secret not in json.dumps(dict(record.data))


def test_altered_unknown_and_ended_keys_are_refused(store: SqliteStore) -> None:
    text, key = keys.create(store, "ana", expires=1000.0)
    assert keys.verify(store, text, now=999.0).owner == "ana"
    refused = [(text, 1000.0, "expired_api_key")]
    refused += [
        (wrong, 0.0, "invalid_api_key") for wrong in (text[:-1] + "_", f"puna-{key.id}-", "puna-x-y", "sk-1", "")
    ]
    for shown, now, code in refused:
        with pytest.raises(ApiError) as caught:
            keys.verify(store, shown, now)
        assert (caught.value.status, caught.value.code) == (401, code), shown
    assert keys.revoke(store, key.id)
    assert not keys.revoke(store, key.id)
    with pytest.raises(ApiError, match="not known"):
        keys.verify(store, text, 0.0)


def test_a_key_needs_an_owner(store: SqliteStore) -> None:
    with pytest.raises(InputError, match="needs an owner"):
        keys.create(store, "")


@pytest.mark.parametrize(
    ("path", "scope"),
    [("/v1/chat/completions", "chat"), ("/v1alpha/agents/a/session", "agents"), ("/tokenize", "tokenize"), ("/", ""),
     ("/v1", "")],
)  # fmt: skip
def test_a_scope_is_the_first_word_of_a_path(path: str, scope: str) -> None:
    assert keys.scope_of(path) == scope
    assert keys.allows(Caller(scopes=frozenset({scope})), path)
    assert not keys.allows(Caller(scopes=frozenset({"other"})), path)


# The key of the settings ----------------------------------------------------------------------------------------------

SECRET = "0123456789abcdef" * 4


def test_the_key_of_the_settings_opens_until_they_name_another(store: SqliteStore, tmp_path: Path) -> None:
    made, _ = keys.create(store, "ana")
    keys.adopt(store, f"puna-ops-{SECRET}")
    keys.adopt(store, f"puna-ops-{SECRET}")  # the next start
    caller = keys.verify(store, f"puna-ops-{SECRET}")
    assert (caller.owner, caller.scopes) == ("ops", {"*"})
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("stack.db*"))
    keys.adopt(store, f"puna-ops-{SECRET[::-1]}")
    with pytest.raises(ApiError):
        keys.verify(store, f"puna-ops-{SECRET}")
    keys.adopt(store, f"puna-chief-{SECRET}")
    assert {key.owner for key in keys.listed(store)} == {"ana", "chief"}
    keys.adopt(store, "")
    assert {key.owner for key in keys.listed(store)} == {"ana"}
    assert keys.verify(store, made).owner == "ana"


@pytest.mark.parametrize(
    "text", ["hunter2", f"sk-ops-{SECRET}", f"puna-{SECRET}", "puna-ops-short", f"puna-o p-{SECRET}"]
)
def test_a_weak_key_in_the_settings_is_refused_and_not_shown(store: SqliteStore, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"\({len(text)} characters\) is no key") as caught:
        keys.adopt(store, text)
    assert "openssl rand" in caught.value.hint
    assert text not in str(caught.value)
