"""Spans for OpenTelemetry, for those who name a collector; nothing is imported or sent otherwise."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider


class TelemetryError(RuntimeError):
    """Spans are enabled, and the packages that send them are not installed."""


def provider(otlp_url: str, service: str) -> TracerProvider:
    """Make what sends spans to a collector, in batches, from a thread of its own.

    Args:
        otlp_url: Where the collector takes OTLP over HTTP, without the path: `http://collector:4318`.
        service: Name that the spans go under.

    Raises:
        TelemetryError: Without the extra `telemetry`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TelemetryError(
            f"MASKSMITH_OTLP_URL is set, but {error.name} is missing: pip install 'masksmith[telemetry]'"
        ) from None
    tracer_provider = TracerProvider(resource=Resource.create({"service.name": service}))
    tracer_provider.add_span_processor(
        BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_url.rstrip("/") + "/v1/traces"))
    )
    return tracer_provider


def trace_of(job: str) -> Context:
    """Give the context under which all spans of a job make one trace, whichever process they come from."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    digest = hashlib.blake2b(job.encode(), digest_size=24).digest()
    parent = SpanContext(
        int.from_bytes(digest[:16]),
        int.from_bytes(digest[16:]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(parent))
