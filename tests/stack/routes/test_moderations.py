"""OpenAI's moderations."""

from __future__ import annotations

from typing import Any

SHIELD = {"shield_id": "words", "params": {"patterns": {"bad": "forbidden", "worse": "terrible"}}}


def test_each_input_has_a_result_with_all_categories(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        await client.post("/v1/shields", json=SHIELD)
        answer = (await client.post("/v1/moderations", json={"input": ["fine", "forbidden"]})).json()
        assert answer["id"].startswith("modr")
        assert answer["model"] == "words"
        fine, flagged = answer["results"]
        assert (fine["flagged"], flagged["flagged"]) == (False, True)
        assert fine["categories"] == {"bad": False, "worse": False}
        assert flagged["categories"] == {"bad": True, "worse": False}
        assert flagged["category_scores"] == {"bad": 1.0, "worse": 0.0}
        parts = [{"type": "text", "text": "a forbidden"}, {"type": "text", "text": " word"}]
        answer = (await client.post("/v1/moderations", json={"input": parts, "model": "words"})).json()
        assert [result["flagged"] for result in answer["results"]] == [True]

    serve(scenario)


def test_no_guard_is_said_and_never_taken_for_a_pass(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        assert (await client.post("/v1/moderations", json={"input": "x"})).status_code == 501
        await client.post("/v1/shields", json=SHIELD)
        answers = {"omni-moderation-latest": 404, "words": 200}
        for model, status in answers.items():
            assert (await client.post("/v1/moderations", json={"input": "x", "model": model})).status_code == status
        assert (await client.post("/v1/moderations", json={"input": []})).status_code == 400

    serve(scenario)
