"""The OpenAPI document is complete, and true: whatever it allows is taken, and every answer is one that it describes.

Bodies are drawn by schemathesis from the document alone, without chance: the same tests draw the same (hypothesis also
takes constants from whatever modules are loaded). Ids and models that are there are put in the place of the drawn ones,
or nearly all cases would be about what is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from jsonschema import Draft202012Validator
from schemathesis import Case
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from puna.stack.app import make_app
from puna.stack.document import key_of
from puna.stack.testing import live, make_stack
from puna.stack.wire.answers import ANSWERS, FILES, STREAMED
from puna.stack.wire.examples import EXAMPLES
from puna.stack.wire.requests import RULES

CASES = 8
ROW = {"input_query": "q", "generated_answer": "a", "expected_answer": "b"}
EMBEDDING = re.compile("embeddings|rerank")
ELSEWHERE = (501, 502)  # not to be had on this server, and a server of tools that is none
NOT_THERE = (401, 403, 404, 409)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with one of everything, and the ids."""
    with live(make_stack(tmp_path_factory.mktemp("server"))) as url, httpx.Client(base_url=f"{url}/v1") as client:

        def made(path: str, field: str, **body: Any) -> str:
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()[field]

        agent = made("/agents", "agent_id", agent_config={"model": "tiny"})
        rows = {"purpose": "eval/question-answer", "source": {"type": "rows", "rows": [ROW]}}
        dataset = made("/datasets", "identifier", dataset_id="rows", **rows)
        functions = ["basic::equality"]
        benchmark = {"benchmark_id": "b", "dataset_id": dataset, "scoring_functions": functions}
        client.post("/shields", json={"shield_id": "words", "params": {"patterns": {"a": "zzz"}}})
        client.post("/eval/benchmarks", json=benchmark)
        file = client.post("/files", files={"file": ("a.txt", b"copyfile copies.")}, data={"purpose": "assistants"})
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "store": True}
        yield (
            url,
            {
                "agent_id": agent,
                "session_id": made(f"/agents/{agent}/session", "session_id", session_name="s"),
                "conversation_id": made("/conversations", "id"),
                "response_id": made("/responses", "id", model="tiny", input="hi"),
                "id": made("/chat/completions", "id", **chat),
                "vector_store_id": made("/vector_stores", "id", name="v"),
                "prompt_id": made("/prompts", "prompt_id", prompt="{{a}}", variables=["a"]),
                "file_id": file.json()["id"],
                "dataset_id": dataset,
                "benchmark_id": "b",
                "identifier": "words",
                "model": "tiny",
                "shield_id": "words",
            },
        )


def aimed(case: Case, ids: dict[str, str]) -> None:
    """Puts what is there in the place of what a drawn case names."""
    if case.method != "DELETE":
        case.path_parameters = {
            name: ids.get(name, value) if name != "id" or "chat" in case.path else value
            for name, value in (case.path_parameters or {}).items()
        }
    bodies = [case.body] if isinstance(case.body, dict) else []
    bodies += [body["agent_config"] for body in bodies if isinstance(body.get("agent_config"), dict)]
    for body in bodies:
        for name in ("model", "dataset_id", "shield_id", "vector_store_id"):
            if isinstance(body.get(name), str) and case.path != "/v1/shields":
                body[name] = "letters" if name == "model" and EMBEDDING.search(case.path) else ids[name]


def faults(case: Case, answer: Any, rules: dict[str, str]) -> Iterator[str]:
    """What is wrong with an answer to a case that the document allows."""
    checks = ("response_schema_conformance", "content_type_conformance", "status_code_conformance")
    try:
        case.validate_response(answer, checks=[check for check in CHECKS.get_all() if check.__name__ in checks])
    except FailureGroup as found:
        yield f"answers what it does not say: {[str(one)[:300] for one in found.exceptions]}"
    if answer.status_code >= 500 and answer.status_code not in ELSEWHERE:
        yield f"fails: {answer.text[:300]}"
    elif 400 <= answer.status_code < 500 and answer.status_code not in NOT_THERE:
        error = answer.json()["error"]
        field = re.sub(r"\.\d+(?=\.|$)", "", error["param"] or "-")
        if not any(field == name or field.startswith(f"{name}.") for name in rules):
            yield f"refuses what it allows: {field}: {error['message'][:200]}"


def draw(cases: SearchStrategy[Case], work: Callable[[Case], None]) -> None:
    """Calls `work` with cases, which are the same in every run."""

    @settings(
        max_examples=CASES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=cases)
    def send(case: Case) -> None:
        work(case)

    send()


@pytest.mark.slow
def test_what_the_document_allows_is_taken_and_answered_as_it_says(server: tuple[str, dict[str, str]]) -> None:
    url, ids = server
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    found: dict[str, str] = {}
    statuses: dict[int, int] = {}
    done: set[str] = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        key = key_of(operation.method, operation.path)
        if key in done:
            continue
        done.add(key)

        def send(case: Case) -> None:
            aimed(case, ids)
            answer = case.call(timeout=30)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            for fault in faults(case, answer, RULES.get(key, {})):  # noqa: B023
                found.setdefault(f"{key} {fault}", json.dumps(case.body, default=str)[:300])  # noqa: B023

        draw(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), send)
    assert not found, "\n".join(f"{fault}\n    {body}" for fault, body in found.items())
    assert statuses[200] > sum(statuses.values()) / 4  # else nearly nothing was about what is there


def test_every_operation_says_what_it_answers(tmp_path: Path) -> None:
    document = make_app(make_stack(tmp_path)).openapi()
    keys = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            keys.add(key_of(method, path))
            answers = operation["responses"]
            assert {"4XX", "5XX"} < set(answers)
            for form in answers.get("200", {}).get("content", {}).values():
                assert form["schema"], (method, path)
                Draft202012Validator.check_schema(form["schema"])
            for form in operation.get("requestBody", {}).get("content", {}).values():
                Draft202012Validator.check_schema(form["schema"])
    assert {*ANSWERS, *FILES, *STREAMED, *RULES, *EXAMPLES} <= keys


def test_whole_numbers_are_bounded_where_the_server_bounds_them(tmp_path: Path) -> None:
    schemas = make_app(make_stack(tmp_path)).openapi()["components"]["schemas"]
    seed = schemas["ChatRequest"]["properties"]["seed"]["anyOf"][0]
    assert (seed["minimum"], seed["maximum"]) == (-(1 << 63), (1 << 63) - 1)
    assert schemas["ChatRequest"]["properties"]["n"]["anyOf"][0]["maximum"] == 128
