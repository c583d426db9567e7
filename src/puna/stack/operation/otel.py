"""Spans by OpenTelemetry, sent to a collector by OTLP over HTTP; its SDK is not imported where nobody traces.

OpenTelemetry's own variables are its SDK's to read: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER,
OTEL_EXPORTER_OTLP_HEADERS, OTEL_BSP_*. Left out: OTLP by gRPC, whose package is larger than this server's; metrics, for
which there is `/metrics`; and baggage, which would carry a stranger's words to other servers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from puna.base.card import version
from puna.base.errors import ConfigError, missing_extra
from puna.stack.config import TelemetryConfig
from puna.stack.spans import Kind, Tracer, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from opentelemetry.trace import Tracer as OtelApiTracer

_log = logging.getLogger(__name__)
_PLACES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"
_FLUSH_SECONDS = 5.0  # that a server that stops gives a collector


def open_tracer(config: TelemetryConfig, environment: Mapping[str, str] | None = None) -> Tracer | None:
    """Where spans go; None where neither the settings nor OpenTelemetry's variables name a collector.

    Raises:
        ConfigError: the collector is to be spoken to in a way that is not there.
        MissingExtraError: the settings name a collector, and OpenTelemetry is not installed. Where only a variable of
            the whole machine names one, the server starts and warns.
    """
    variables = os.environ if environment is None else environment
    named = any(variables.get(name) for name in _PLACES)
    off = variables.get("OTEL_SDK_DISABLED", "").lower() == "true" or variables.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not (config.endpoint or named):
        return None
    protocol = next((variables[name] for name in _PROTOCOLS if variables.get(name)), _SPOKEN)
    if protocol != _SPOKEN:
        raise ConfigError(
            f"Traces are to be sent by {protocol!r}, and this server sends them by {_SPOKEN!r} alone.",
            hint="Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, and the collector's port for it (4318 by default).",
        )
    try:
        return _exporting(config)
    except ImportError as error:
        missing = missing_extra("opentelemetry", "otel", "Tracing")
        if config.endpoint:
            raise missing from error
        _log.warning("%s %s The server runs without traces.", missing.message, missing.hint)
        return None


def _exporting(config: TelemetryConfig) -> Tracer:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    own = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "puna"}
    provider = TracerProvider(resource=Resource.create({**own, "service.version": version()}), shutdown_on_exit=False)
    place = f"{config.endpoint.rstrip('/')}/v1/traces" if config.endpoint else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=place)))
    return OtelTracer(provider)


class OtelTracer:
    """Args:
    provider: of OpenTelemetry's SDK, with its processors.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("puna", version())

    def server(self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]) -> OtelSpan:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
        above = TraceContextTextMapPropagator().extract(carrier, context=Context())
        span = self._tracer.start_span(name, above, SpanKind.SERVER, attributes)
        return OtelSpan(self._tracer, span)

    def close(self) -> None:
        self._provider.force_flush(int(_FLUSH_SECONDS * 1e3))
        self._provider.shutdown()


class OtelSpan:
    """A span of OpenTelemetry as `puna.stack.spans` has them."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, tracer: OtelApiTracer, span: Span) -> None:
        self._tracer, self._span = tracer, span

    @property
    def trace_id(self) -> str:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def headers(self) -> Mapping[str, str]:
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._span))
        return carrier

    def child(self, name: str, attributes: Mapping[str, Value], kind: Kind = "internal") -> OtelSpan:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, set_span_in_context

        above = set_span_in_context(self._span, Context())
        return OtelSpan(self._tracer, self._tracer.start_span(name, above, SpanKind[kind.upper()], attributes))

    def set(self, attributes: Mapping[str, Value], name: str = "") -> None:
        self._span.set_attributes(attributes)
        if name:
            self._span.update_name(name)

    def end(self, error: str = "") -> None:
        from opentelemetry.trace import Status, StatusCode

        if error:  # its message may hold a user's words
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
