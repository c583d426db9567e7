"""What failures mean."""

from __future__ import annotations

import random

import pytest

from puna.base.errors import ConfigError, InputError, RemoteError
from puna.stack.errors import ApiError
from puna.stack.providers.remote_reading import UpstreamError
from puna.stack.routing.failures import classify, wait


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UpstreamError("busy", status=429, retry_after=7, may_pass=True), "passing"),
        (UpstreamError("broken", status=500, may_pass=True), "passing"),
        (UpstreamError("broke off", may_pass=True), "passing"),
        (UpstreamError("what is no JSON"), "provider"),
        (UpstreamError("bad key", status=401), "provider"),
        (UpstreamError("no such model", status=404), "provider"),
        (RemoteError("gone"), "passing"),
        (ConnectionResetError("reset"), "passing"),
        (ApiError(400, "too long"), "request"),
        (ApiError(400, "no seed here", code="unsupported_parameter"), "unfit"),
        (ApiError(400, "too long here", code="context_length_exceeded"), "unfit"),
        (ApiError(403, "your key", code="invalid_provider_key"), "provider"),
        (ApiError(503, "loading"), "passing"),
        (InputError("no text"), "request"),
        (ConfigError("temperature"), "request"),
        (TimeoutError("silent"), "late"),
    ],
)
def test_a_failure_has_a_kind(error: Exception, kind: str) -> None:
    failure = classify(error)
    assert failure.kind == kind
    assert failure.may_pass == (kind == "passing")
    assert failure.blames_provider == (kind in ("provider", "passing", "late"))
    assert str(error).split()[0] in failure.message


def test_the_rest_that_a_provider_asks_for_is_read() -> None:
    assert classify(UpstreamError("busy", status=429, retry_after=7, may_pass=True)).retry_after == 7
    assert classify(ApiError(503, "loading", headers={"Retry-After": "3"})).retry_after == 3
    assert classify(ApiError(503, "loading", headers={"Retry-After": "soon"})).retry_after == 0


def test_waits_are_drawn_from_all_of_a_bound_that_doubles() -> None:
    drawn = random.Random(0)
    for attempt, bound in enumerate((0.5, 1.0, 2.0, 2.0)):
        waits = [wait(attempt, 0.5, 2.0, drawn) for _ in range(500)]
        assert 0 <= min(waits) < bound / 10
        assert bound * 0.9 < max(waits) <= bound
