"""OpenTelemetry: when it is on, what a collector receives, and that nothing of it is there when it is off."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from puna.base.errors import ConfigError
from puna.stack.config import TelemetryConfig
from puna.stack.operation.otel import OtelTracer, open_tracer

ABOVE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP on the loopback, and keeps it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.received: list[ExportTraceServiceRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.paths.append(self.path)
                outer.received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def spans(self) -> Mapping[str, object]:
        return {span.name: span for batch in self.received for resource in batch.resource_spans
                for scope in resource.scope_spans for span in scope.spans}  # fmt: skip

    def service(self) -> str:
        attributes = self.received[0].resource_spans[0].resource.attributes
        return next(pair.value.string_value for pair in attributes if pair.key == "service.name")


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            collector.shutdown()
            thread.join()


# When it is on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_traced_unless_somebody_names_a_collector(environment: dict[str, str]) -> None:
    assert open_tracer(TelemetryConfig(), environment) is None


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="endpoint is 'localhost:4318'"):
        TelemetryConfig("localhost:4318")
    grpc = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(ConfigError, match="sent by 'grpc'") as caught:
        open_tracer(TelemetryConfig(), grpc)
    assert "4318" in caught.value.hint


def test_a_collector_receives_spans_with_the_servers_name() -> None:
    with collecting() as collector:
        tracer = open_tracer(TelemetryConfig(collector.url), {})
        assert tracer is not None
        span = tracer.server("GET", ABOVE, {"http.request.method": "GET"})
        span.child("inner", {"n": 3}).end()
        span.end()
        tracer.close()
    assert set(collector.paths) == {"/v1/traces"}
    assert collector.service() == os.environ.get("OTEL_SERVICE_NAME", "puna")
    assert set(collector.spans) == {"GET", "inner"}


SERVER = """
import sys
from pathlib import Path
from puna.stack.config import ServerConfig, StackConfig
from puna.stack.operation import server
from puna.stack.testing import ScriptedProvider

config = StackConfig(server=ServerConfig(port=0))
listening = server.listen(config.server)
stack, app = server.build(config, Path(sys.argv[1]), {"p": ScriptedProvider("p")})
server.serve(app, config.server, listening, lambda address: print(address, flush=True))
"""


def test_a_server_sends_what_it_has_when_it_stops(tmp_path: Path) -> None:
    import httpx

    with collecting() as collector:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "my-puna"}
        command = [sys.executable, "-c", SERVER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            body = {"model": "p/tiny", "messages": [{"role": "user", "content": "my secret words"}]}
            assert httpx.post(f"{address}/v1/chat/completions", json=body, trust_env=False).status_code == 200
            process.terminate()
            process.wait(30)
    assert collector.service() == "my-puna"
    assert set(collector.spans) == {"POST /v1/chat/completions", "chat tiny"}
    assert b"secret" not in b"".join(batch.SerializeToString() for batch in collector.received)


def test_a_collector_that_is_away_holds_no_server_up(tmp_path: Path) -> None:
    import httpx

    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert httpx.get(f"{address}/v1/models", trust_env=False).status_code == 200
        process.terminate()
        assert process.wait(60) is not None


OFF = """
import sys
import fastapi  # which imports OpenTelemetry's interfaces for itself
before = set(sys.modules)
from pathlib import Path
from puna.stack.config import StackConfig
from puna.stack.operation import server
from puna.stack.testing import ScriptedProvider

server.build(StackConfig(), Path(sys.argv[1]), {"p": ScriptedProvider("p")})
print([name for name in set(sys.modules) - before if name.startswith("opentelemetry")])
"""
MISSING = """
import sys
from puna.stack.config import TelemetryConfig
from puna.stack.operation.otel import open_tracer

sys.modules["opentelemetry.sdk"] = sys.modules["opentelemetry.sdk.trace"] = None
assert open_tracer(TelemetryConfig(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) is None
try:
    open_tracer(TelemetryConfig("http://127.0.0.1:9"), {})
except ModuleNotFoundError as error:
    print("raw")
except Exception as error:
    print(error)
"""


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_nothing_is_imported_when_it_is_off(tmp_path: Path) -> None:
    assert python(OFF, str(tmp_path)).stdout == "[]\n"


def test_where_it_is_not_installed_only_the_settings_insist_on_it() -> None:
    done = python(MISSING)
    assert "pip install 'puna[otel]'" in done.stdout
    assert "runs without traces" in done.stderr


# Spans ----------------------------------------------------------------------------------------------------------------


def test_spans_hang_together_and_bear_what_they_are_given() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    root = OtelTracer(provider).server("POST", ABOVE, {"a": 1})
    child = root.child("child", {"b": "x"}, "client")
    assert child.headers["traceparent"].startswith(f"00-{'a' * 32}-")
    assert child.headers["traceparent"] != root.headers["traceparent"]
    assert child.headers["tracestate"] == "vendor=1"
    assert child.trace_id == root.trace_id == "a" * 32
    child.end("RemoteError")
    root.set({"c": ["p", "q"]}, "POST /x")
    root.end()
    inner, outer = exporter.get_finished_spans()
    assert (outer.name, outer.kind, dict(outer.attributes or {})) == (
        "POST /x",
        SpanKind.SERVER,
        {"a": 1, "c": ("p", "q")},
    )
    assert outer.parent is not None
    assert f"{outer.parent.span_id:016x}" == "b" * 16
    assert inner.parent is not None
    assert inner.parent.span_id == outer.context.span_id
    assert (inner.kind, inner.status.is_ok) == (SpanKind.CLIENT, False)
    assert dict(inner.attributes or {}) == {"b": "x", "error.type": "RemoteError"}


@pytest.mark.parametrize("wrong", ["", "00-zz-zz-01", f"00-{'0' * 32}-{'b' * 16}-01", "x" * 5000])
def test_a_wrong_traceparent_begins_a_trace_of_its_own(wrong: str) -> None:
    span = OtelTracer(TracerProvider()).server("GET", {"traceparent": wrong}, {})
    assert span.trace_id not in ("0" * 32, "a" * 32)
    span.end()


def test_what_is_not_sampled_stays_so_further_down() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    root = OtelTracer(provider).server("GET", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"}, {})
    child = root.child("child", {})
    assert child.headers["traceparent"].endswith("-00")
    child.end()
    root.end()
    assert not exporter.get_finished_spans()
