"""One form of refusal for everything."""

from __future__ import annotations

import pytest

from puna.base import errors
from puna.stack.errors import ApiError, as_api_error, invalid, not_found, not_implemented


def test_the_body_is_openais() -> None:
    error = ApiError(429, "Wait.", param="model", code="rate_limit_exceeded", headers={"Retry-After": "3"})
    fields = {"message": "Wait.", "type": "rate_limit_error", "param": "model", "code": "rate_limit_exceeded"}
    assert error.body() == {"error": fields}
    assert not_found("file", "file_1").status == 404
    assert invalid("no", "n").body()["error"]["param"] == "n"
    assert not_implemented("not yet").body()["error"]["type"] == "not_implemented_error"
    assert ApiError(418, "x").type == "invalid_request_error"
    assert ApiError(599, "x").type == "server_error"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.ConfigError("n is 0"), 400, "invalid_value"),
        (errors.ToolCallError("no call"), 400, "invalid_value"),
        (errors.RemoteError("gone"), 502, "provider_error"),
        (errors.ResourceError("full"), 503, "out_of_resources"),
        (errors.BusyError("held"), 409, "busy"),
        (errors.CheckpointError("torn"), 500, "internal_error"),
    ],
)
def test_punas_errors_keep_their_message_and_way_out(error: errors.PunaError, status: int, code: str) -> None:
    error.hint = "Do this."
    refusal = as_api_error(error)
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.message == f"{error.message} Do this."


def test_what_nobody_foresaw_tells_nothing() -> None:
    refusal = as_api_error(RuntimeError("the password is 123"))
    assert refusal.status == 500
    assert "123" not in refusal.message
    same = ApiError(404, "x")
    assert as_api_error(same) is same
