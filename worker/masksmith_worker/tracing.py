"""OpenTelemetry spans of shards, if a collector is configured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from masksmith_state.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Spans:
    """Sends a span of each shard of a masks job to a collector; the spans of a job's shards belong to one trace.

    Args:
        otlp_url: URL of the collector; if empty, no spans are sent.
    """

    def __init__(self, otlp_url: str) -> None:
        self._provider: TracerProvider | None = (
            tracing.make_tracer_provider(otlp_url, "masksmith-worker") if otlp_url else None
        )

    @contextmanager
    def record_shard(self, job: str, index: int) -> Iterator[dict[str, str]]:
        """Record the block as the span of a shard; members of the yielded dict become attributes `masksmith.NAME`."""
        attributes: dict[str, str] = {}
        if self._provider is None:
            yield attributes
            return
        tracer = self._provider.get_tracer("masksmith")
        identity: dict[str, str | int] = {"masksmith.job": job, "masksmith.shard": index}
        with tracer.start_as_current_span("shard", tracing.job_trace_context(job), attributes=identity) as span:
            try:
                yield attributes
            finally:
                for name, value in attributes.items():
                    span.set_attribute(f"masksmith.{name}", value)

    def stop(self) -> None:
        """Send the remaining spans, and shut down."""
        if self._provider is not None:
            self._provider.shutdown()
