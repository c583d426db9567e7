"""Input lines: each fault is named with its line, and the whole file is checked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from puna.stack.batches.lines import MOST_LINES, Fault, Line, check, parse

URL = "/v1/chat/completions"


def knows(model: str) -> bool:
    return model == "m"


def row(**changes: Any) -> bytes:
    data = {"custom_id": "a", "method": "POST", "url": URL, "body": {"model": "m", "messages": []}}
    return json.dumps({**data, **changes}).encode() + b"\n"


def test_requests_come_with_the_numbers_of_their_lines() -> None:
    rows = [row(), b"\n", row(custom_id="b", body={"model": "m", "messages": [], "x": 1})]
    assert list(parse(rows, URL)) == [
        Line(1, "a", {"model": "m", "messages": []}),
        Line(3, "b", {"model": "m", "messages": [], "x": 1}),
    ]
    assert check(rows, URL, knows) == (2, [])


@pytest.mark.parametrize(
    ("bad", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff\xfe\n", "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (b"[1]\n", "invalid_request", None),
        (b"{}", "missing_required_parameter", "custom_id"),
        (b'{"custom_id": "a", "method": "POST", "url": "/v1/x"}', "missing_required_parameter", "body"),
        (row(body={"model": "m", "messages": [], "x": float("nan")}), "invalid_json_line", None),
        (row(body={"model": "m", "messages": [], "x": "\ud800"}), "invalid_json_line", None),
        (row(custom_id=7), "invalid_type", "custom_id"),
        (row(custom_id=""), "invalid_type", "custom_id"),
        (row(method="GET"), "invalid_method", "method"),
        (row(url="/v1/files"), "invalid_url", "url"),
        (row(body="x"), "invalid_type", "body"),
        (row(body={"stream": True}), "streaming_unsupported", "body.stream"),
        (row(body={"background": True}), "background_unsupported", "body.background"),
        (row(body={"messages": []}), "invalid_request", "body.model"),
        (row(body={"model": "m"}), "invalid_request", "body.messages"),
        (row(body={"model": "other", "messages": []}), "model_not_found", "body.model"),
        (row(body={"model": 7, "messages": []}), "model_not_found", "body.model"),
    ],
)
def test_a_fault_is_named_with_its_line(bad: bytes, code: str, param: str | None) -> None:
    total, faults = check([row(custom_id="first"), bad], URL, knows)
    assert total == 1
    assert [(fault.number, fault.code, fault.param) for fault in faults] == [(2, code, param)]
    assert faults[0].wire()["line"] == 2


def test_two_requests_of_one_name_are_a_fault() -> None:
    _, (fault,) = check([row(), row(custom_id="b"), row()], URL, knows)
    assert (fault.number, fault.code) == (3, "duplicate_custom_id")
    assert "line 1" in fault.message


def test_a_file_without_requests_is_a_fault() -> None:
    assert check([b"\n"], URL, knows)[1] == [Fault(None, "empty_file", "The file holds no request.")]


def test_too_many_requests_are_a_fault() -> None:
    rows = (row(custom_id=str(n)) for n in range(MOST_LINES + 5))
    _, (fault,) = check(rows, URL, knows)
    assert fault.code == "too_many_requests"


def test_at_most_a_hundred_faults_are_told() -> None:
    assert len(check([b"{"] * 1000, URL, knows)[1]) == 100
