"""Tracer providers and parent contexts of OpenTelemetry spans; OpenTelemetry is imported when they are made."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider


class TelemetryError(RuntimeError):
    """A collector is configured, but the packages that send spans are not installed."""


def make_tracer_provider(otlp_url: str, service: str) -> TracerProvider:
    """Make a tracer provider that sends spans to a collector, in batches, from a thread of its own.

    Args:
        otlp_url: OTLP endpoint of the collector over HTTP, without the path: `http://collector:4318`.
        service: Value of the resource attribute `service.name`.

    Raises:
        TelemetryError: If the extra `telemetry` is not installed.
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


def job_trace_context(job: str) -> Context:
    """Parent context of a job's spans, derived from the job's id, so that spans of all processes are in one trace."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    digest = hashlib.blake2b(job.encode(), digest_size=24).digest()
    parent = SpanContext(
        int.from_bytes(digest[:16]),
        int.from_bytes(digest[16:]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(parent))
