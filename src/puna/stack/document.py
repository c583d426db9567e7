"""The OpenAPI document: what FastAPI knows of the bodies, with the answers, the refusals, bounds and examples.

FastAPI sees no answers, for routes build them themselves; what they look like is in `wire.answers`. A whole number has
64 bits at most here (`wire.base`), and the document says so wherever a number is not bounded closer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from puna.stack.wire.answers import ANSWERS, FILES, SCHEMAS, STREAMED
from puna.stack.wire.examples import EXAMPLES
from puna.stack.wire.requests import FORMS, PARAMETERS, RULES

_VERSION = re.compile(r"^/v1(?:alpha|beta)?(?:/admin)?(?=/)")
_BOUNDS = {"minimum": -(1 << 63), "maximum": (1 << 63) - 1}
_TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong, and the way out."},
                "type": {"type": "string"},
                "param": {**_TEXT_OR_NULL, "description": "The field of the request that it is about."},
                "code": {**_TEXT_OR_NULL, "description": "For programs."},
            },
        }
    },
    "examples": [
        {
            "error": {
                "message": "The model 'x' was not found.",
                "type": "not_found_error",
                "param": "model",
                "code": "not_found",
            }
        }
    ],
}
_REFUSED = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application."""
    made = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {**SCHEMAS, "Error": _ERROR}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, forms in FORMS.items():
        _describe(schemas[name]["properties"], forms, name.startswith("Body_"))
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            _complete(operation, key_of(method, path))
    for schema in _integers(made):
        for side, bound in _BOUNDS.items():
            if not {side, f"exclusive{side.capitalize()}"} & set(schema):
                schema[side] = bound
    return made


def key_of(method: str, path: str) -> str:
    """How tables name an operation: without the version, for its ages share what they answer."""
    return f"{method.upper()} {_VERSION.sub('', path)}"


def _complete(operation: dict[str, Any], key: str) -> None:
    answers = operation["responses"]
    answers.pop("422", None)
    answers["4XX"] = {"description": "Refused: the request is at fault.", **_REFUSED}
    answers["5XX"] = {"description": "Failed, or (501) not to be had on this server.", **_REFUSED}
    content = answers.get("200", {}).setdefault("content", {}) if "200" in answers else {}
    if key in FILES:
        content.clear()
        content[FILES[key]] = {"schema": {"type": "string"}}
    elif key in ANSWERS:
        content["application/json"] = {"schema": ANSWERS[key]}
    if key in STREAMED:
        content["text/event-stream"] = {"schema": {"description": "Server-sent events; the data of each is JSON."}}
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query" and parameter["name"] in PARAMETERS:
            parameter["schema"] = PARAMETERS[parameter["name"]]
    if key in RULES:
        operation["x-rules"] = RULES[key]
        said = "\n".join(f"- `{field}`: {rule}." for field, rule in RULES[key].items())
        operation["description"] = f"{operation.get('description', '')}\n\nBeside the schema:\n\n{said}".strip()
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and key in EXAMPLES:
        body["example"] = EXAMPLES[key]


def _describe(fields: dict[str, Any], forms: dict[str, Any], multipart: bool) -> None:
    """Puts forms in the place of what FastAPI knows of fields; null stays allowed where it is."""
    for name, form in forms.items():
        was = fields[name]
        nullable = {"type": "null"} in was.get("anyOf", ()) and not multipart  # a form has no null
        about = {word: was[word] for word in ("title", "description") if word in was}
        fields[name] = {"anyOf": [form, {"type": "null"}], **about} if nullable else {**form, **about}


def _integers(value: Any) -> Iterator[dict[str, Any]]:
    """All schemas of whole numbers in a document."""
    if isinstance(value, dict):
        if value.get("type") == "integer" and "enum" not in value and "const" not in value:
            yield value
        for inner in value.values():
            yield from _integers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _integers(inner)
