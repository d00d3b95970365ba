"""Conclusions from a benchmark's results: winners, break-evens, estimates, sentences. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .conclusions import NOISE, BreakEven, Estimate, Winner, break_evens, estimates, winners
from .results import CaseResult

RATES = ("copy_bytes_per_s", "matrix_flops_per_s")
"""Keys of a result's `machine` that are measured for each dtype, so they differ between results of one machine."""


@dataclass(frozen=True)
class Answers:
    """Results, and conclusions from them.

    Attributes:
        results: One per case.
        settings: Seed, rounds, threads and other settings.
    """

    results: Sequence[CaseResult]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def winners(self) -> list[Winner]:
        """The fastest sparse kernel of every requested case with a dense time."""
        return winners(self.results)

    @cached_property
    def break_evens(self) -> list[BreakEven]:
        """The density at which each kernel becomes faster than dense, for each layer, batch, dtype and direction.

        Kernels that were measured at fewer than two densities are left out.
        """
        return break_evens(self.results)

    @cached_property
    def estimates(self) -> list[Estimate]:
        """The total time of the layers of requested cases, for each pattern, batch, dtype and direction."""
        return estimates(self.results)

    @property
    def machines(self) -> list[dict[str, Any]]:
        """The distinct machines that measured results."""
        machines: list[dict[str, Any]] = []
        for result in self.results:
            machine = _without_rates(result)
            if machine and machine not in machines:
                machines.append(machine)
        return machines

    def results_of(self, machine: Mapping[str, Any]) -> list[CaseResult]:
        """Return the results that one of `machines` measured."""
        return [result for result in self.results if _without_rates(result) == machine]

    @property
    def failures(self) -> list[str]:
        """One line for every case that failed, and for every kernel that failed in a case."""
        lines = [f"{result.case}: {result.error}" for result in self.results if result.error]
        lines += [
            f"{measurement.kernel} at {result.case}: {measurement.reason}"
            for result in self.results
            for measurement in result.measurements
            if measurement.outcome == "failed"
        ]
        return lines

    @property
    def skipped(self) -> dict[str, str]:
        """Reasons why kernels cannot run on a machine at all, by kernel; of several reasons, the last one."""
        return {
            measurement.kernel: measurement.reason or ""
            for result in self.results
            for measurement in result.measurements
            if measurement.outcome == "skipped"
        }

    def conclusions(self) -> list[str]:
        """Return one sentence for each of `estimates`."""
        return [_conclusion(estimate) for estimate in self.estimates]


def _without_rates(result: CaseResult) -> dict[str, Any]:
    """Describe a result's machine without the rates of the result's dtype."""
    return {key: value for key, value in result.machine.items() if key not in RATES}


def _conclusion(estimate: Estimate) -> str:
    where = f"{estimate.pattern}, batch {estimate.batch}, {estimate.dtype}, {estimate.direction}"
    if not estimate.by_kernel:
        return f"{where}: no sparse kernel was measured for this pattern; use dense."
    sparse = ", ".join(sorted({name for name in estimate.kernels.values() if name != "dense"}))
    if estimate.is_noise:
        spread = f"{estimate.low:.2f}x to {estimate.high:.2f}x"
        return f"{where}: within the noise of dense: {estimate.speedup:.2f}x ({spread}) over all layers, with {sparse}."
    if estimate.speedup > 1.0:
        return f"{where}: {estimate.speedup:.2f}x faster than dense over all layers, with {sparse}."
    name = min(estimate.by_kernel, key=lambda kernel: estimate.by_kernel[kernel])
    ratio = estimate.dense_s / estimate.by_kernel[name]
    if ratio > 1.0 - NOISE:
        return f"{where}: nothing beats dense; {name} is about as fast, at {ratio:.2f}x."
    noise = ", within the noise" if estimate.gain(name).is_noise else ""
    return f"{where}: nothing beats dense; the best sparse kernel, {name}, reaches {ratio:.2f}x{noise}."
