"""The circuit breaker, with a clock of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from puna.stack.routing.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def breaker(trip: int = 3, cool_down: float = 10.0) -> tuple[Breaker, Clock]:
    clock = Clock()
    return Breaker(trip, cool_down, clock), clock


def test_it_opens_after_failures_in_a_row() -> None:
    circuit, _ = breaker()
    for _ in range(2):
        assert circuit.begin()
        circuit.failed()
    circuit.succeeded()
    for _ in range(2):
        circuit.failed()
    assert circuit.state == "closed"
    circuit.failed()
    assert circuit.state == "open"
    assert not circuit.begin()
    assert circuit.closed_to_all == "circuit open for 10.0 s more: 3 failures in a row"


def test_one_request_tries_it_and_closes_it() -> None:
    circuit, clock = breaker(trip=1)
    circuit.failed()
    clock.now += 10
    assert circuit.state == "half_open"
    assert circuit.begin()
    assert not circuit.begin()
    assert "one request is trying" in circuit.closed_to_all
    circuit.succeeded()
    assert circuit.state == "closed"
    assert circuit.closed_to_all == ""


def test_a_failed_probe_opens_it_for_twice_as_long() -> None:
    circuit, clock = breaker(trip=1)
    for seconds in (10, 20, 40):
        circuit.failed()
        clock.now += seconds - 0.1
        assert circuit.state == "open"
        clock.now += 0.1
        assert circuit.begin()
    circuit.succeeded()
    circuit.failed()
    clock.now += 10
    assert circuit.state == "half_open"  # a success has made it trusting again


def test_a_probe_whose_caller_left_frees_the_place() -> None:
    circuit, clock = breaker(trip=1)
    circuit.failed()
    clock.now += 10
    assert circuit.begin()
    circuit.dropped()
    assert circuit.begin()


def test_a_rest_that_it_asks_for_is_given() -> None:
    circuit, clock = breaker(trip=5)
    circuit.failed(rest=30)
    assert "asked for a rest" in circuit.closed_to_all
    clock.now += 29
    assert not circuit.begin()
    clock.now += 1
    assert circuit.begin()


@given(st.lists(st.sampled_from(["begin", "ok", "fail", "rest", "drop", "wait"]), max_size=40))
def test_an_open_circuit_lets_nobody_through_and_always_opens_up_again(steps: list[str]) -> None:
    circuit, clock = breaker(trip=2, cool_down=1.0)
    for step in steps:
        match step:
            case "begin":
                assert (
                    circuit.begin() == (circuit.state == "closed" or not circuit.closed_to_all) or circuit.closed_to_all
                )
            case "ok":
                circuit.succeeded()
            case "fail":
                circuit.failed()
            case "rest":
                circuit.failed(rest=5)
            case "drop":
                circuit.dropped()
            case "wait":
                clock.now += 0.7
        if circuit.state == "open":
            assert not circuit.begin()
    clock.now += 1000
    circuit.dropped()
    assert circuit.begin()
