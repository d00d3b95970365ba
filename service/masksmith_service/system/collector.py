"""Prometheus collector: counters and histograms from Redis; gauges of jobs, queues, workers, broker and damaged blobs.

No counter is kept in this process, so all services of an installation return the same values, and a restart
resets no counter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from masksmith_state.blobs.store import BlobStore
from masksmith_state.broker import BrokerMonitor
from masksmith_state.jobs.records import JobRecords
from masksmith_state.queue import CPU_QUEUE, GPU_QUEUE
from masksmith_state.telemetry.counters import GAP_BOUNDS, SECONDS_BOUNDS, UPLOAD_BYTES, counts_by_labels


class MetricsCollector:
    """A Prometheus collector over job records, the store and the broker."""

    def __init__(self, records: JobRecords, store: BlobStore, broker: BrokerMonitor) -> None:
        self._records, self._store, self._broker = records, store, broker

    def collect(self) -> Iterator[Metric]:
        """Read all metrics.

        Raises:
            redis.RedisError: If the broker is unavailable.
        """
        counts = self._records.counts()
        yield from _jobs(counts)
        yield from _shards(counts)
        upload_bytes = counts_by_labels(counts, UPLOAD_BYTES) or {(): 0.0}
        yield _with_values(
            CounterMetricFamily("masksmith_upload_bytes", "Bytes of uploads that were received."), upload_bytes
        )
        unreadable = CounterMetricFamily(
            "masksmith_unreadable", "Messages and records that could not be read.", labels=["kind"]
        )
        yield _with_values(unreadable, counts_by_labels(counts, "unreadable"))
        yield from self._queues_and_workers()
        yield from self._broker_state()
        names = (name for name, _ in self._store.list_damaged())
        damaged_counts: Counter[tuple[str, ...]] = Counter((name.partition("/")[0],) for name in names)
        yield _gauge("masksmith_damaged_blobs", "Blobs that were damaged and set aside.", ["kind"], damaged_counts)

    def _broker_state(self) -> Iterator[Metric]:
        status = self._broker.status()
        memory: dict[tuple[str, ...], float] = {("used",): status.used_bytes, ("max",): status.max_bytes}
        yield _gauge(
            "masksmith_broker_bytes", "Memory that the broker uses, and may use; 0: no limit.", ["kind"], memory
        )
        yield _gauge(
            "masksmith_broker_losses",
            "Number of reasons why the broker may lose or refuse work.",
            [],
            {(): len(status.problems)},
        )

    def _queues_and_workers(self) -> Iterator[Metric]:
        depths: dict[tuple[str, ...], float] = {
            (queue,): self._records.schedule.depth(queue) for queue in (CPU_QUEUE, GPU_QUEUE)
        }
        yield _gauge("masksmith_queue_depth", "Shards that wait in a queue.", ["queue"], depths)
        worker_counts: Counter[tuple[str, ...]] = Counter()
        slot_counts: Counter[tuple[str, ...]] = Counter()
        for worker in self._records.workers.live():
            worker_counts[worker.device,] += 1
            slot_counts[worker.device,] += worker.slots
        yield _gauge("masksmith_workers", "Workers that are alive.", ["device"], worker_counts)
        yield _gauge("masksmith_worker_slots", "Shards that live workers solve at once.", ["device"], slot_counts)


def _jobs(counts: Mapping[str, str]) -> Iterator[Metric]:
    job_counts = {key: value for key, value in counts_by_labels(counts, "jobs").items() if value > 0}
    yield _gauge("masksmith_jobs", "Jobs on record.", ["kind", "state"], job_counts)
    ended = CounterMetricFamily("masksmith_jobs_ended", "Jobs that have ended.", labels=["kind", "state"])
    yield _with_values(ended, counts_by_labels(counts, "ended"))


def _shards(counts: Mapping[str, str]) -> Iterator[Metric]:
    shards = CounterMetricFamily(
        "masksmith_shards",
        "Shards that are done: solved, remembered (the result was cached) or failed.",
        labels=["device", "outcome"],
    )
    yield _with_values(shards, counts_by_labels(counts, "shards"))
    seconds = HistogramMetricFamily(
        "masksmith_shard_seconds", "Seconds spent on a solved shard, including reading and writing.",
        labels=["device"],
    )  # fmt: skip
    by_labels = counts_by_labels(counts, "shard_seconds")
    for device in sorted({labels[0] for labels in by_labels}):
        # The keys are numbers of buckets, and `sum` for the sum of all seconds.
        device_values = {labels[1]: value for labels, value in by_labels.items() if labels[0] == device}
        seconds.add_metric([device], _cumulative_buckets(device_values, SECONDS_BOUNDS), device_values.get("sum", 0.0))
    yield seconds
    gap_values = {labels[0]: value for labels, value in counts_by_labels(counts, "gap").items()}
    gap = HistogramMetricFamily("masksmith_shard_gap", "Gap of a solved shard to its bound; 0 is a proof.")
    gap.add_metric([], _cumulative_buckets(gap_values, GAP_BOUNDS), gap_values.get("sum", 0.0))
    yield gap


def _cumulative_buckets(counts: Mapping[str, float], bounds: tuple[float, ...]) -> list[tuple[str, float]]:
    """Numbers of observations up to each bound, as Prometheus defines buckets, from the counts between the bounds."""
    totals = accumulate(counts.get(str(number), 0.0) for number in range(len(bounds) + 1))
    return list(zip([*map(str, bounds), "+Inf"], totals, strict=True))


def _gauge(name: str, meaning: str, labels: list[str], values: Mapping[tuple[str, ...], float]) -> Metric:
    return _with_values(GaugeMetricFamily(name, meaning, labels=labels), values)


def _with_values(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[tuple[str, ...], float]) -> Metric:
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family
