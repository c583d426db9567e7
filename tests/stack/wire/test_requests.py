"""Forms of free objects: what routes read is allowed, what they refuse is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from puna.stack.testing import make_stack, talk
from puna.stack.wire.requests import FORMS, PARAMETERS, RULES

USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CHAT: list[tuple[bool, dict[str, Any]]] = [
    (True, {"messages": [USER]}),
    (True, {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]}),
    (True, {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]}),
    (True, {"messages": [USER], "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}}),
    (True, {"messages": [USER], "logit_bias": {"5": -100}}),
    (True, {"messages": [USER], "response_format": {"type": "json_object"}}),
    (False, {"messages": []}),
    (False, {"messages": [{"role": "judge", "content": "hi"}]}),
    (False, {"messages": [{"role": "user", "content": None}]}),
    (False, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
    (False, {"messages": [{"role": "assistant"}]}),
    (False, {"messages": [USER], "tools": [{"type": "function", "function": {}}]}),
    (False, {"messages": [USER], "tool_choice": "maybe"}),
    (False, {"messages": [USER], "logit_bias": {"5": 101}}),
    (False, {"messages": [USER], "structured_outputs": {}}),
    (False, {"messages": [USER], "structured_outputs": {"regex": "a", "choice": ["a"]}}),
    (False, {"messages": [USER], "functions": [{"name": "look"}]}),
    (False, {"messages": [USER], "max_tokens": 0}),
]


@pytest.mark.parametrize(("allowed", "body"), CHAT)
def test_the_form_of_a_chat_is_that_which_the_route_reads(tmp_path: Path, allowed: bool, body: dict[str, Any]) -> None:
    fields = FORMS["ChatRequest"]
    assert all(Draft202012Validator(fields[name]).is_valid(value) for name, value in body.items()) is allowed

    async def work(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/chat/completions", json={"model": "tiny", **body})
        assert answer.status_code == (200 if allowed else 400), answer.text

    talk(make_stack(tmp_path), work)


def test_forms_are_schemas_and_rules_are_said_in_words() -> None:
    for form in [*PARAMETERS.values(), *(form for fields in FORMS.values() for form in fields.values())]:
        Draft202012Validator.check_schema(form)
    assert all(field and rule for rules in RULES.values() for field, rule in rules.items())
