"""What was measured, as values that go to JSON and back. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .cases import BASELINES, Case, Layer

Outcome = Literal["measured", "failed", "skipped"]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median over rounds, and where four of five rounds lie.

    Attributes:
        median_s: Median.
        p20_s: A fifth of the rounds were faster.
        p80_s: A fifth of the rounds were slower.
        rounds: Number of rounds, each of which timed all kernels of the case one after the other.
    """

    median_s: float
    p20_s: float
    p80_s: float
    rounds: int


@dataclass(frozen=True)
class Measurement:
    """One kernel in one case.

    Attributes:
        kernel: Its name.
        outcome: `measured`, `failed` (it raised, or its numbers were wrong), or `skipped` (it cannot run here).
        reason: Why not, where it was not measured.
        eager: A call as the user makes it.
        graph: The same replayed from a CUDA graph: without what Python and the launch cost; CUDA only.
        speedup: Median over rounds of dense time / its time, from graphs where there are any.
        eager_speedup: The same for eager calls.
        error: Largest error against float64, in units of what rounding explains; at most 1.
        pack_s: Seconds to bring the masked weight into its format, apart from all others.
        tune_s: Seconds to search, once for this shape, what makes it fast.
        weight_bytes: What the packed weight takes.
        roofline: Share reached of what the device's copy and matrix rates would allow for the work that is useful.
        notes: What else it says: layout, algorithm, tuning.
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
        """The time that comparisons rest on: the graph's where there is one."""
        return self.graph or self.eager


@dataclass(frozen=True)
class CaseResult:
    """A case and what its kernels did.

    Attributes:
        case: The case.
        density: Share of entries that its mask keeps.
        measurements: One a kernel; dense first.
        conditions: Clocks, temperature, power and throttling while it ran, where the device tells.
        machine: Where it ran.
        error: Why nothing was measured at all.
    """

    case: Case
    density: float
    measurements: Sequence[Measurement]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    def of(self, kernel: str) -> Measurement | None:
        """Give what a kernel did, if it was measured."""
        return next((one for one in self.measurements if one.kernel == kernel and one.outcome == "measured"), None)

    @property
    def measured(self) -> list[Measurement]:
        """Kernels that were measured."""
        return [one for one in self.measurements if one.outcome == "measured"]

    @property
    def sparse(self) -> list[tuple[Measurement, float]]:
        """Kernels that use the mask and were measured beside dense, and their speed-ups."""
        return [(one, one.speedup) for one in self.measured if one.kernel not in BASELINES and one.speedup is not None]

    @property
    def best(self) -> tuple[Measurement, float] | None:
        """The fastest of those."""
        return max(self.sparse, key=lambda pair: pair[1], default=None)

    @property
    def dense_s(self) -> float | None:
        """Seconds of the dense product, if it was measured."""
        dense = self.of("dense")
        return None if dense is None or dense.timing is None else dense.timing.median_s

    def document(self) -> dict[str, Any]:
        """Give the result as JSON."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> CaseResult:
        """Read what `document` gave."""
        measurements = [_measurement(one) for one in document["measurements"]]
        return cls(**{**document, "case": cls.read_case(document["case"]), "measurements": measurements})

    @staticmethod
    def read_case(document: Mapping[str, Any]) -> Case:
        """Read a case from the JSON of `dataclasses.asdict`."""
        layer, kernels = Layer(**document["layer"]), tuple(document["kernels"])
        return Case(**{**document, "layer": layer, "kernels": kernels})


def _measurement(document: Mapping[str, Any]) -> Measurement:
    timings = {key: None if document[key] is None else Timing(**document[key]) for key in ("eager", "graph")}
    return Measurement(**{**document, **timings})
