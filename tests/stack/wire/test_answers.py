"""Schemas of answers fit what the wire's writers make, refer to what is there, and take no other model's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.openapi.utils import get_openapi
from jsonschema import Draft202012Validator, validate

from puna.core.chat import Message, ToolCall
from puna.core.completion import Completion, Usage
from puna.stack.app import make_app
from puna.stack.testing import make_stack
from puna.stack.wire.answers import ANSWERS, SCHEMAS
from puna.stack.wire.chat import Frame, chat_completion, usage_json
from puna.stack.wire.completions import choice_json, text_completion

FRAME = Frame("id", 1, "p/m", "fp")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].rsplit("/", 1)[1]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_answers_of_models_fit() -> None:
    call = Completion(Message("assistant", "", (ToolCall("look", {"a": 1}, "call_1"),)), Usage(3, 4))
    for completion in (call, Completion(Message("assistant", "hi"), Usage(1, 1), cost=0.5)):
        validate(json.loads(json.dumps(chat_completion(FRAME, completion))), SCHEMAS["ChatCompletion"])
    text = text_completion(FRAME, [choice_json(0, "hi", finish="stop")], usage_json(call))
    validate(text, SCHEMAS["TextCompletion"])


def test_what_lacks_a_field_does_not_fit() -> None:
    whole = chat_completion(FRAME, Completion(Message("assistant", "hi"), Usage(1, 1)))
    del whole["choices"][0]["message"]["content"]
    assert not Draft202012Validator(SCHEMAS["ChatCompletion"]).is_valid(whole)


def test_references_lead_somewhere_and_names_are_taken_once(tmp_path: Path) -> None:
    app = make_app(make_stack(tmp_path))
    models = get_openapi(title="", version="", routes=app.routes)["components"]["schemas"]
    assert not set(SCHEMAS) & set(models)
    assert set(references([ANSWERS, SCHEMAS])) <= {*SCHEMAS, *models}
