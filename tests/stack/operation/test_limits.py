"""Buckets fill up over a minute, and an overdrawn one waits."""

from __future__ import annotations

import pytest

from puna.stack.errors import ApiError
from puna.stack.operation.limits import Limits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_are_let_in_until_the_bucket_is_empty_and_again_when_it_fills() -> None:
    clock = Clock()
    limits = Limits(requests=6, clock=clock)
    for left in range(5, -1, -1):
        assert limits.admit("a")["x-ratelimit-remaining-requests"] == str(left)
    with pytest.raises(ApiError) as caught:
        limits.admit("a")
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "10")
    limits.admit("b")
    clock.now += 9.9
    with pytest.raises(ApiError, match=r"wait 0\.1 seconds"):
        limits.admit("a")
    clock.now += 0.2
    limits.admit("a")
    clock.now += 1e6
    assert limits.admit("a")["x-ratelimit-remaining-requests"] == "5"


def test_tokens_are_paid_for_afterwards() -> None:
    clock = Clock()
    limits = Limits(tokens=60, clock=clock)
    limits.admit("a")
    limits.spend("a", 90)
    with pytest.raises(ApiError, match="60 tokens a minute"):
        limits.admit("a")
    clock.now += 31
    limits.admit("a")


def test_without_limits_nothing_is_counted() -> None:
    limits = Limits()
    for _ in range(1000):
        assert limits.admit("a") == {}
    limits.spend("a", 10**9)
    assert not limits._buckets
