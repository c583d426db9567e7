"""Counters and histograms in Prometheus's text form: requests, tokens, times to the first token, streams under way.

Labels are route templates, models and statuses: never ids, texts or keys.
"""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """A server's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("puna_requests", "Requests.", ("method", "route", "status"), registry=registry)
        self.seconds = Histogram("puna_request_seconds", "To the end of the answer.", ("route",), registry=registry,
                                 buckets=_SECONDS)  # fmt: skip
        self.active = Gauge("puna_requests_active", "Requests under way.", registry=registry)
        self.tokens = Counter("puna_tokens", "Tokens.", ("model", "kind"), registry=registry)
        self.first_token = Histogram("puna_first_token_seconds", "To the first piece of an answer.", ("model",),
                                     registry=registry, buckets=_SECONDS)  # fmt: skip
        self.rate = Histogram("puna_tokens_per_second", "Of one answer's decoding.", ("model",), registry=registry,
                              buckets=_RATES)  # fmt: skip
        self.failures = Counter("puna_model_failures", "Answers that failed.", ("model", "error"), registry=registry)
        self.cost = Counter("puna_cost_dollars", "Price of answers.", ("model",), registry=registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
