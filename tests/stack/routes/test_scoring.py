"""Scoring over HTTP."""

from __future__ import annotations

from typing import Any

ROWS = [{"input_query": "q", "generated_answer": word, "expected_answer": "yes"} for word in ("yes", "no")]


def test_rows_are_scored(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        body = {"input_rows": ROWS, "scoring_functions": {"basic::equality": None}}
        found = (await client.post("/v1/scoring/score", json=body)).json()["results"]["basic::equality"]
        assert [row["score"] for row in found["score_rows"]] == [1.0, 0.0]
        assert found["aggregated_results"]["accuracy"]["accuracy"] == 0.5
        refused = await client.post("/v1/scoring/score", json=body | {"scoring_functions": {"none": None}})
        assert refused.json()["error"]["param"] == "scoring_functions"

    serve(scenario)


def test_a_function_of_ones_own(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        body = {
            "scoring_fn_id": "mine",
            "description": "A number.",
            "return_type": {"type": "number"},
            "params": {"type": "regex_parser", "parsing_regexes": [r"(\d+)"]},
        }
        made = (await client.post("/v1/scoring-functions", json=body)).json()
        assert made["provider_resource_id"] == "basic::regex_parser_multiple_choice_answer"
        listed = [row["identifier"] for row in (await client.get("/v1/scoring-functions")).json()["data"]]
        assert listed[-1] == "mine"
        assert "llm-as-judge::base" in listed
        assert (await client.get("/v1/scoring-functions/basic::bfcl")).json()["provider_id"] == "basic"
        assert (await client.delete("/v1/scoring-functions/mine")).status_code == 204
        assert (await client.get("/v1/scoring-functions/mine")).status_code == 404

    serve(scenario)


def test_a_dataset_is_scored_and_its_scores_can_be_kept(serve: Any) -> None:
    async def scenario(client: Any, stack: Any) -> None:
        dataset = {"dataset_id": "d", "purpose": "eval/question-answer", "source": {"type": "rows", "rows": ROWS}}
        await client.post("/v1beta/datasets", json=dataset)
        body = {"dataset_id": "d", "scoring_functions": {"basic::subset_of": None}, "save_results_dataset": True}
        answer = (await client.post("/v1/scoring/score-batch", json=body)).json()
        kept = (await client.get(f"/v1beta/datasetio/iterrows/{answer['dataset_id']}")).json()["data"]
        assert [row["scores"]["basic::subset_of"]["score"] for row in kept] == [1.0, 0.0]
        assert kept[0]["input_query"] == "q"

    serve(scenario)
