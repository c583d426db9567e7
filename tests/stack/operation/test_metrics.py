"""Figures in Prometheus's text."""

from __future__ import annotations

from puna.stack.operation.metrics import Metrics


def test_what_is_counted_can_be_read() -> None:
    metrics = Metrics()
    metrics.requests.labels("GET", "/v1/models", "200").inc()
    metrics.tokens.labels("local/a", "prompt").inc(7)
    metrics.first_token.labels("local/a").observe(0.03)
    text = metrics.text().decode()
    assert 'puna_requests_total{method="GET",route="/v1/models",status="200"} 1.0' in text
    assert 'puna_tokens_total{kind="prompt",model="local/a"} 7.0' in text
    assert 'puna_first_token_seconds_bucket{le="0.05",model="local/a"} 1.0' in text


def test_two_servers_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.active.inc()
    assert "puna_requests_active 1.0" in one.text().decode()
    assert "puna_requests_active 0.0" in other.text().decode()
