"""Registered scoring functions, and a model as judge."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from puna.stack.errors import ApiError
from puna.stack.scoring.service import JUDGE, Scoring, scoring_of
from puna.stack.testing import ScriptedProvider, make_stack

ROW = {"input_query": "2 + 2?", "expected_answer": "4", "generated_answer": "{input_query} is 4"}


async def started(folder: Path, *answers: str) -> tuple[Scoring, ScriptedProvider]:
    provider = ScriptedProvider(answers=answers)
    stack = make_stack(folder, provider)
    await stack.start()
    return scoring_of(stack), provider


def test_several_functions_score_the_same_rows(tmp_path: Path) -> None:
    async def go() -> None:
        scoring, _ = await started(tmp_path)
        found = await scoring.score("", [ROW, ROW], {"basic::equality": None, "basic::subset_of": {}})
        assert [row["score"] for row in found["basic::equality"]["score_rows"]] == [0.0, 0.0]
        assert found["basic::subset_of"]["aggregated_results"]["accuracy"]["accuracy"] == 1.0

    asyncio.run(go())


def test_the_judge_reads_the_row_once_and_its_number_is_the_score(tmp_path: Path) -> None:
    async def go() -> None:
        scoring, provider = await started(tmp_path, "Right.\nScore: 5", "I cannot say.")
        found = await scoring.score("", [ROW, ROW], {JUDGE: {"judge_model": "tiny"}})
        assert [row["score"] for row in found[JUDGE]["score_rows"]] == [5.0, None]
        assert found[JUDGE]["aggregated_results"]["average"] == {"average": 5.0, "count": 1}
        prompt = provider.asked[0].messages[0].content
        assert "Question: 2 + 2?" in prompt
        assert "Given answer: {input_query} is 4" in prompt  # what a row says is not a template

    asyncio.run(go())


def test_a_registered_judge_has_its_own_prompt_and_categories(tmp_path: Path) -> None:
    async def go() -> None:
        scoring, provider = await started(tmp_path, "Verdict: GOOD")
        params = {
            "type": "llm_as_judge",
            "judge_model": "scripted/tiny",
            "prompt_template": "Judge: {generated_answer}",
            "judge_score_regexes": ["Verdict: (GOOD|BAD)"],
            "aggregation_functions": ["categorical_count"],
        }
        await scoring.register("", "taste", {"params": params, "description": "Taste."})
        found = await scoring.score("", [ROW], {"taste": None})
        assert found["taste"]["aggregated_results"] == {"categorical_count": {"categorical_count": {"GOOD": 1}}}
        assert provider.asked[0].messages[0].content == "Judge: {input_query} is 4"

    asyncio.run(go())


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"params": {"type": "basic"}, "provider_resource_id": "nothing"}, "provider_scoring_fn_id"),
        ({"params": {"type": "odd"}}, "provider_scoring_fn_id"),
        ({"params": {"type": "regex_parser", "parsing_regexes": ["("]}}, "parsing_regexes"),
        ({"params": {"type": "regex_parser", "parsing_regexes": "a"}}, "parsing_regexes"),
        ({"params": {"type": "basic", "aggregation_functions": ["x"]}}, "aggregation_functions"),
    ],
)
def test_what_cannot_score_cannot_be_registered(tmp_path: Path, data: dict, param: str) -> None:
    async def go() -> None:
        scoring, _ = await started(tmp_path)
        with pytest.raises(ApiError) as refused:
            await scoring.register("", "f", data)
        assert (refused.value.status, refused.value.param) == (400, param)

    asyncio.run(go())


def test_built_in_functions_cannot_be_replaced_or_deleted(tmp_path: Path) -> None:
    async def go() -> None:
        scoring, _ = await started(tmp_path)
        with pytest.raises(ApiError):
            await scoring.register("", "basic::equality", {"params": {"type": "basic"}})
        with pytest.raises(ApiError):
            await scoring.functions.delete("", "basic::equality")
        with pytest.raises(ApiError, match="judge_model"):
            await scoring.score("", [ROW], {JUDGE: None})

    asyncio.run(go())
