"""Datasets over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

BODY = {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": [{"n": n} for n in range(5)]}}


@pytest.mark.parametrize("prefix", ["/v1beta", "/v1"])
def test_a_datasets_life(serve: Any, prefix: str) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        made = (
            await client.post(f"{prefix}/datasets", json=BODY | {"dataset_id": "org/d", "metadata": {"a": 1}})
        ).json()
        assert (made["identifier"], made["metadata"]) == ("org/d", {"a": 1})
        rows = f"{prefix}/datasetio/iterrows/org/d"
        page = (await client.get(rows, params={"start_index": 1, "limit": 2})).json()
        assert page == {"data": [{"n": 1}, {"n": 2}], "has_more": True, "url": None}
        append = await client.post(f"{prefix}/datasetio/append-rows/org/d", json={"rows": [{"n": 5}]})
        assert append.status_code == 204
        assert len((await client.get(rows, params={"limit": -1})).json()["data"]) == 6
        listed = (await client.get(f"{prefix}/datasets")).json()["data"]
        assert [row["identifier"] for row in listed] == ["org/d"]
        assert (await client.delete(f"{prefix}/datasets/org/d")).status_code == 204
        assert (await client.get(rows)).status_code == 404

    serve(scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "fun"},
        {"source": {}},
        {"source": {"uri": "x", "rows": []}},
        {"source": {"rows": [1]}},
        {"dataset_id": ""},
    ],
)
def test_broken_datasets_are_refused(serve: Any, change: dict) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        refused = await client.post("/v1beta/datasets", json=BODY | {"dataset_id": "d"} | change)
        if change.get("dataset_id") == "":
            assert refused.json()["identifier"].startswith("dataset_")  # as if none had been given
            return
        assert refused.status_code == 400
        assert set(refused.json()["error"]) == {"message", "type", "param", "code"}

    serve(scenario)
