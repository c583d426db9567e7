"""The lines of a batch's input: JSON Lines, one request each, as OpenAI's batches have them.

The whole file is checked before the first request is made, so that a fault in its last line costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_LINES = 50_000
_MOST_FAULTS = 100
# The endpoints that batches are for, and what their bodies need.
REQUIRED: Mapping[str, Sequence[str]] = {
    "/v1/chat/completions": ("model", "messages"),
    "/v1/completions": ("model", "prompt"),
    "/v1/embeddings": ("model", "input"),
    "/v1/responses": ("model",),
    "/v1/moderations": ("input",),
}


@dataclass(frozen=True, slots=True)
class Line:
    """A request.

    Attributes:
        number: of the line, from 1.
        custom_id: the caller's name for it.
        body: of the request.
    """

    number: int
    custom_id: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line."""

    number: int | None
    code: str
    message: str
    param: str | None = None

    def wire(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "param": self.param, "line": self.number}


def check(rows: Iterable[bytes], endpoint: str, knows: Callable[[str], bool]) -> tuple[int, list[Fault]]:
    """How many requests a file holds, and what is wrong with them, of which the first hundred faults are told.

    Args:
        rows: the file's lines.
        endpoint: that they are for.
        knows: whether there is a model of this name.
    """
    faults: list[Fault] = []
    seen: dict[str, int] = {}
    for item in parse(rows, endpoint):
        if isinstance(item, Fault):
            faults.append(item)
        elif item.custom_id in seen:
            message = f"The custom_id {item.custom_id!r} is that of line {seen[item.custom_id]} too."
            faults.append(Fault(item.number, "duplicate_custom_id", message, "custom_id"))
        elif fault := _body_fault(item, endpoint, knows):
            faults.append(fault)
        else:
            seen[item.custom_id] = item.number
        if len(faults) >= _MOST_FAULTS:
            break
        if len(seen) > MOST_LINES:
            return len(seen), [Fault(None, "too_many_requests", f"A batch may have {MOST_LINES:,} requests.")]
    if not seen and not faults:
        faults.append(Fault(None, "empty_file", "The file holds no request."))
    return len(seen), faults


def parse(rows: Iterable[bytes], endpoint: str) -> Iterator[Line | Fault]:
    """Each line's request, or its fault; blank lines are passed over."""
    for number, row in enumerate(rows, start=1):
        if row.strip():
            yield _line(number, row, endpoint)


def _line(number: int, row: bytes, endpoint: str) -> Line | Fault:
    try:
        data = json.loads(row)
        # What Python reads and no JSON may hold, such as NaN or half a character, could not be sent on.
        json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        return Fault(number, "invalid_json_line", f"The line is not valid JSON: {error}.")
    if not isinstance(data, dict):
        return Fault(number, "invalid_request", "The line is not a JSON object.")
    for name in ("custom_id", "method", "url", "body"):
        if name not in data:
            return Fault(number, "missing_required_parameter", f"The parameter {name!r} is missing.", name)
    custom_id, method, url, body = data["custom_id"], data["method"], data["url"], data["body"]
    if not isinstance(custom_id, str) or not custom_id:
        return Fault(number, "invalid_type", "custom_id must be a text.", "custom_id")
    if method != "POST":
        return Fault(number, "invalid_method", f"The method is {method!r}; it must be 'POST'.", "method")
    if url != endpoint:
        return Fault(
            number, "invalid_url", f"The url {url!r} does not match the batch's endpoint, {endpoint!r}.", "url"
        )
    if not isinstance(body, dict):
        return Fault(number, "invalid_type", "body must be an object.", "body")
    return Line(number, custom_id, body)


def _body_fault(line: Line, endpoint: str, knows: Callable[[str], bool]) -> Fault | None:
    """What is wrong with a body, as far as that can be said without asking the route."""
    body = line.body
    if body.get("stream"):
        return Fault(line.number, "streaming_unsupported", "Streaming is not supported in a batch.", "body.stream")
    if body.get("background"):
        message = "A batch is in the background as it is; its requests cannot be."
        return Fault(line.number, "background_unsupported", message, "body.background")
    for name in REQUIRED[endpoint]:
        if name not in body:
            return Fault(line.number, "invalid_request", f"The parameter {name!r} is required.", f"body.{name}")
    model = body.get("model")
    if "model" in REQUIRED[endpoint] and not (isinstance(model, str) and knows(model)):
        return Fault(line.number, "model_not_found", f"The model {model!r} is not supported here.", "body.model")
    return None
