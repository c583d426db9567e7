"""Which models there are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import httpx

from puna.stack.providers.provider import ModelInfo
from puna.stack.routes.models import find
from puna.stack.testing import ScriptedProvider, make_stack, talk


class Growing(ScriptedProvider):
    """Offers one model more each time that it is asked."""

    def __init__(self, id: str, loading: bool = False) -> None:
        super().__init__(id)
        self.count, self.loading, self.switched = 0, loading, []

    async def models(self) -> Sequence[ModelInfo]:
        self.count += 1
        length = 0 if self.loading and self.count < 3 else 99
        meta = {"status": "loading"} if length == 0 else {}
        return [ModelInfo(f"m/{i}", context_length=length, meta=meta) for i in range(self.count)]

    async def load(self, model: str) -> None:
        self.switched.append(("load", model))

    async def unload(self, model: str) -> None:
        self.switched.append(("unload", model))


def test_models_of_all_providers_are_listed_and_found_by_ids_with_slashes(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        listed = (await client.get("/v1/models")).json()
        assert listed["object"] == "list"
        ids = [row["id"] for row in listed["data"]]
        assert ids == ["g/m/0", "g/m/1", "scripted/letters", "scripted/tiny"]
        for id in ids:
            assert (await client.get(f"/v1/models/{id}")).json()["id"] == id
        vectors = (await client.get("/v1/models/letters")).json()
        assert (vectors["id"], vectors["custom_metadata"]["model_type"]) == ("scripted/letters", "embedding")
        missing = await client.get("/v1/models/nobody/at/all")
        assert (missing.status_code, missing.json()["error"]["param"]) == (404, "model")

    talk(make_stack(tmp_path, Growing("g"), ScriptedProvider()), work)


def test_anthropics_clients_get_their_own_object_and_nobody_else_does(tmp_path: Path) -> None:
    stack = make_stack(tmp_path)

    async def work(client: httpx.AsyncClient) -> None:
        listed = (await client.get("/v1/models")).json()["data"]
        assert not any("display_name" in row for row in listed)
        page = (await client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()
        assert (page["first_id"], page["last_id"]) == ("scripted/letters", "scripted/tiny")
        row = page["data"][1]
        assert (row["type"], row["display_name"], row["max_input_tokens"]) == ("model", "scripted/tiny", 4096)
        assert datetime.fromisoformat(row["created_at"]).timestamp() == int(stack.started)
        one = await client.get("/v1/models/tiny", headers={"anthropic-version": "2023-06-01"})
        assert one.json() == row

    talk(stack, work)


def test_a_model_that_has_come_since_is_found(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, Growing("g"))

    async def work(client: httpx.AsyncClient) -> None:
        assert "g/m/1" not in stack.models
        assert (await client.get("/v1/models/g/m/1")).status_code == 200
        assert (await find(stack, "m/2"))[1].id == "m/2"

    talk(stack, work)


def test_what_was_unknown_while_a_model_loaded_is_asked_for_again(tmp_path: Path) -> None:
    stack = make_stack(tmp_path, Growing("g", loading=True))

    async def work(client: httpx.AsyncClient) -> None:
        del client
        assert stack.models["g/m/0"][1].context_length == 0
        assert (await find(stack, "g/m/0"))[1].context_length == 0
        assert (await find(stack, "g/m/0"))[1].context_length == 99

    talk(stack, work)


def test_a_local_model_can_be_put_away_and_taken_in(tmp_path: Path) -> None:
    growing = Growing("g")

    async def work(client: httpx.AsyncClient) -> None:
        for verb in ("unload", "load"):
            answer = await client.post(f"/v1alpha/admin/models/g/m/0/{verb}")
            assert (answer.status_code, answer.json()["id"]) == (200, "g/m/0")
        refused = await client.post("/v1alpha/admin/models/scripted/tiny/unload")
        assert refused.status_code == 501

    talk(make_stack(tmp_path, growing, ScriptedProvider()), work)
    assert growing.switched == [("unload", "m/0"), ("load", "m/0")]
