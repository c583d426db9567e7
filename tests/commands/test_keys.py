"""`puna keys`: a key is printed once, listed without its secret, and ended."""

from __future__ import annotations

import json
from pathlib import Path

from puna.stack.operation import keys
from puna.stack.state.sqlite import SqliteStore


def test_the_life_of_a_key(puna, tmp_path: Path) -> None:
    state = ("--state", tmp_path)
    code, text, errors = puna("keys", *state, "create", "ana", "--scope", "chat", "--days", "2", "--name", "laptop")
    assert code == 0, errors
    store = SqliteStore(tmp_path / "stack.db")
    caller = keys.verify(store, text.strip())
    assert (caller.owner, caller.scopes) == ("ana", {"chat"})
    code, listed, _ = puna("keys", *state, "list", "--json")
    (row,) = json.loads(listed)
    assert (row["owner"], row["name"], row["scopes"]) == ("ana", "laptop", ["chat"])
    assert text.strip() not in listed
    assert "ana" in puna("keys", *state, "list")[1]
    assert puna("keys", *state, "revoke", row["id"])[0] == 0
    assert json.loads(puna("keys", *state, "list", "--json")[1]) == []
    code, _, errors = puna("keys", *state, "revoke", row["id"])
    assert code == 3
    assert "There is no key" in errors
