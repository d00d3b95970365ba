"""Results of measurements, with conversion to and from JSON. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .cases import BASELINES, Case, Layer

Outcome = Literal["measured", "failed", "skipped"]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and quantiles over rounds.

    Attributes:
        median_s: Median.
        p20_s: 20 % quantile.
        p80_s: 80 % quantile.
        rounds: Number of rounds, each of which timed all kernels of the case in turn.
    """

    median_s: float
    p20_s: float
    p80_s: float
    rounds: int


@dataclass(frozen=True)
class Measurement:
    """One kernel in one case; what was not measured is None.

    Attributes:
        kernel: Name of the kernel.
        outcome: `measured`, `failed` (it raised an error, or its result was wrong), or `skipped` (it cannot run here).
        reason: Why the kernel failed or was skipped.
        eager: Time of an eager call.
        graph: Time of a replay from a CUDA graph, without the overhead of Python and the launch; CUDA only.
        speedup: Median dense time / median time of the kernel: of replays if both have a graph, else of eager calls.
        eager_speedup: Median dense time / median time of the kernel, of eager calls.
        error: Largest error against float64, relative to the largest possible rounding error; above 1 the result is
            wrong, and the kernel has failed. None also if the result contains NaN or has the wrong shape.
        pack_s: Seconds to convert the masked weight to the kernel's format.
        tune_s: Seconds to tune the kernel for this shape.
        weight_bytes: Bytes of the packed weight.
        roofline: Shortest possible time relative to the measured one, by the roofline model with the measured copy and
            matrix rates of the device.
        notes: Other information, by name, such as layout, algorithm, tuning.
    """

    kernel: str
    outcome: Outcome
    reason: str | None = None
    eager: Timing | None = None
    graph: Timing | None = None
    speedup: float | None = None
    eager_speedup: float | None = None
    error: float | None = None
    pack_s: float | None = None
    tune_s: float | None = None
    weight_bytes: int | None = None
    roofline: float | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def timing(self) -> Timing | None:
        """The time of the graph, else that of eager calls; None if there is neither."""
        return self.graph or self.eager

    def compared_with(self, dense: Measurement) -> tuple[Timing, Timing] | None:
        """Return the times of dense and of this kernel: of graph replays if both have them, else of eager calls.

        None if there is no kind of time that both have.
        """
        for dense_timing, timing in ((dense.graph, self.graph), (dense.eager, self.eager)):
            if dense_timing is not None and timing is not None:
                return dense_timing, timing
        return None


def timings_of_one_kind(measurements: Iterable[Measurement]) -> Callable[[Measurement], Timing]:
    """Return a function that maps each of these measurements to its time, so that the times can be added.

    Times are of graph replays if all of the measurements have one, else of eager calls: a replay is without the
    overhead of Python and the launch, which eager calls include.
    """
    replays = all(measurement.graph is not None for measurement in measurements)

    def timing(measurement: Measurement) -> Timing:
        selected = (measurement.graph if replays else measurement.eager) or measurement.timing
        assert selected is not None
        return selected

    return timing


@dataclass(frozen=True)
class Gain:
    """A speed-up over dense, computed from the times that reports show.

    Attributes:
        value: Ratio of the medians.
        low: Ratio of the 20 % quantile of dense and the 80 % quantile of the kernel.
        high: Ratio of the 80 % quantile of dense and the 20 % quantile of the kernel.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, dense: Timing, kernel: Timing) -> Gain:
        """Compare the times of dense and of a kernel."""
        low, high = dense.p20_s / kernel.p80_s, dense.p80_s / kernel.p20_s
        return cls(dense.median_s / kernel.median_s, low, high)

    @property
    def is_noise(self) -> bool:
        """Whether the range includes 1, so that it does not show whether the kernel is faster or slower than dense."""
        return self.low <= 1.0 <= self.high

    def __str__(self) -> str:
        return f"{self.value:.2f}x{', within noise' if self.is_noise else ''}"


@dataclass(frozen=True)
class CaseResult:
    """A case and the measurements of its kernels.

    Attributes:
        case: The case.
        density: Share of entries that its mask keeps; that of the pattern if the case failed.
        measurements: One per kernel, dense first; none if the case failed.
        conditions: Clocks, temperature and power directly after the last round, and throttling after any round, if the
            device reports them.
        machine: Description of the machine.
        error: Error of the case as a whole, or None.
    """

    case: Case
    density: float
    measurements: Sequence[Measurement]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    def of(self, kernel: str) -> Measurement | None:
        """Return a kernel's measurement, or None if it was not measured."""
        return next((measurement for measurement in self.measured if measurement.kernel == kernel), None)

    @property
    def measured(self) -> list[Measurement]:
        """Measurements of kernels that were measured."""
        return [measurement for measurement in self.measurements if measurement.outcome == "measured"]

    @property
    def gains(self) -> list[tuple[Measurement, Gain]]:
        """Measurements of kernels that use the mask, each with its speed-up over dense and the range of the speed-up.

        Empty if the dense product was not measured.
        """
        dense = self.of("dense")
        if dense is None:
            return []
        return [
            (measurement, Gain.of(*timings))
            for measurement in self.measured
            if measurement.kernel not in BASELINES and (timings := measurement.compared_with(dense)) is not None
        ]

    @property
    def speedups(self) -> list[tuple[Measurement, float]]:
        """The measurements of `gains`, each with its speed-up as a number, without the range."""
        return [(measurement, gain.value) for measurement, gain in self.gains]

    @property
    def best(self) -> tuple[Measurement, float] | None:
        """The fastest kernel of `speedups`; None if there is none."""
        return max(self.speedups, key=lambda pair: pair[1], default=None)

    @property
    def dense_s(self) -> float | None:
        """Median seconds of the dense product; None if it was not measured."""
        dense = self.of("dense")
        return None if dense is None or dense.timing is None else dense.timing.median_s

    def document(self) -> dict[str, Any]:
        """Return the result as a dict for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> CaseResult:
        """Build a result from the dict that `document` returned."""
        measurements = [_read_measurement(fields) for fields in document["measurements"]]
        return cls(**{**document, "case": cls.read_case(document["case"]), "measurements": measurements})

    @staticmethod
    def read_case(document: Mapping[str, Any]) -> Case:
        """Build a case from its `dataclasses.asdict`."""
        layer, kernels = Layer(**document["layer"]), tuple(document["kernels"])
        return Case(**{**document, "layer": layer, "kernels": kernels})


def _read_measurement(document: Mapping[str, Any]) -> Measurement:
    timings = {key: None if document[key] is None else Timing(**document[key]) for key in ("eager", "graph")}
    return Measurement(**{**document, **timings})
