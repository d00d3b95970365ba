"""A span for each shard, where a collector is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from masksmith_state.telemetry import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Spans:
    """Sends a span of each shard to a collector; all shards of a job make one trace.

    Args:
        otlp_url: The collector's address; no spans are sent without one.
    """

    def __init__(self, otlp_url: str) -> None:
        self._provider: TracerProvider | None = tracing.provider(otlp_url, "masksmith-worker") if otlp_url else None

    @contextmanager
    def shard(self, job: str, index: int) -> Iterator[dict[str, str]]:
        """Measure a shard; members of the dict become attributes of the span."""
        outcome: dict[str, str] = {}
        if self._provider is None:
            yield outcome
            return
        tracer = self._provider.get_tracer("masksmith")
        named: dict[str, str | int] = {"masksmith.job": job, "masksmith.shard": index}
        with tracer.start_as_current_span("shard", tracing.trace_of(job), attributes=named) as span:
            yield outcome
            for name, value in outcome.items():
                span.set_attribute(f"masksmith.{name}", value)

    def stop(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()
