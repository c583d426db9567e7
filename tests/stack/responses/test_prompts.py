from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from puna.stack.errors import ApiError
from puna.stack.responses.prompts import filled
from puna.stack.state.sqlite import SqliteStore
from puna.stack.state.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = SqliteStore(tmp_path / "stack.db")
    made.insert("prompt", "pmpt_1", {"default": 2, "latest": 2}, owner="ann")
    for number, text in ((1, "Old."), (2, "Speak {{ tongue }} to {{name}}.")):
        data = {"prompt": text, "variables": ["tongue", "name"]}
        made.insert("prompt_version", f"pmpt_1:{number}", data, owner="ann", parent="pmpt_1")
    return made


def test_values_are_filled_in(store: Store) -> None:
    values = {"tongue": "German", "name": {"type": "input_text", "text": "{{tongue}}"}}
    assert filled(store, "ann", {"id": "pmpt_1", "variables": values}) == "Speak German to {{tongue}}."
    assert filled(store, "ann", {"id": "pmpt_1", "version": "1"}) == "Old."


@pytest.mark.parametrize(
    ("owner", "named", "status", "param"),
    [
        ("bob", {"id": "pmpt_1"}, 404, "prompt.id"),
        ("ann", {"id": "pmpt_1", "version": "9"}, 404, "prompt.version"),
        ("ann", {"id": "pmpt_1"}, 400, "prompt.variables.tongue"),
        ("ann", {"id": "pmpt_1", "variables": {"tongue": {"type": "input_image"}}}, 400, "prompt.variables.tongue"),
        ("ann", {"variables": {}}, 400, "prompt"),
    ],
)
def test_what_is_missing_is_named(store: Store, owner: str, named: Any, status: int, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        filled(store, owner, named)
    assert (caught.value.status, caught.value.param) == (status, param)
