"""Measures a case: packs its weight for each kernel, checks the products, then times the kernels in rounds.

1. A random weight gets its mask, the best one or the user's. Each kernel packs the weight and is tuned, if it can be;
   packing and tuning are timed separately.
2. Every kernel's product is compared with the float64 product of the masked weight; the product of `dense` is compared
   with that of the weight before it is masked. Kernels that cannot run, fail, or have wrong results are not timed.
3. In each round, every kernel with a correct result runs, so that changes of the machine's speed affect all of them
   equally. Times are medians over rounds, and a speed-up is the ratio of two medians. A GPU's clocks and throttling are
   read before the kernels are packed, and directly after each round.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from masksmith._torch_modes import in_full_precision
from masksmith._torch_threads import torch_threads

from .cases import BASELINES, Case
from .cuda_clock import CudaClock
from .fastest import Product, fastest, synchronise
from .gpu_monitor import GpuMonitor, merge_states
from .host_clock import AfterRound, HostClock, Runs, Seconds
from .kernel import Kernel, Operand, obstacle_of
from .machine import describe
from .operands import check_mask, make_operand, reference, weight_and_mask
from .peaks import Clock, Peaks, measure
from .results import CaseResult, Measurement, Timing

log = logging.getLogger("masksmith")
ROUNDS = 15

Products = dict[str, Product]
"""Functions that multiply the weight and activations, by the name of the kernel."""


@dataclass
class Bench:
    """Measures cases on one device; peak rates are measured once per dtype.

    Attributes:
        kernels: Kernels by name.
        device: `cpu`, or a CUDA device.
        rounds: Rounds per case.
        threads: Number of threads of CPU kernels.
        seed: Seed of all random numbers.
        masks: Masks by layer name; cases of purpose `asked`, which the user requested, use them instead of
            the best masks.
        clock: Clock of the device.
    """

    kernels: Mapping[str, Kernel]
    device: str = "cpu"
    rounds: int = ROUNDS
    threads: int = 1
    seed: int = 0
    masks: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock: Clock = HostClock(self.threads) if self.device == "cpu" else CudaClock(self.device)
        self._monitor = GpuMonitor(self.device, _uuid(self.device))
        self._obstacles = {name: obstacle_of(kernel, self.device) for name, kernel in self.kernels.items()}
        self._peaks: dict[str, Peaks] = {}
        # Layer and pattern of the last case, and whether its mask is the best one; its weight and mask.
        self._last: tuple[object, tuple[np.ndarray, np.ndarray]] | None = None

    def measure(self, case: Case) -> CaseResult:
        """Measure one case, with TF32 switched off; a kernel's error is reported in its measurement."""
        # Kernels may launch on the current device, whatever the device of their operands.
        current_device = nullcontext() if self.device == "cpu" else torch.cuda.device(self.device)
        with torch_threads(self.threads), in_full_precision(), current_device:
            return self._measure(case)

    def _measure(self, case: Case) -> CaseResult:
        weight, mask = self._weight_and_mask(case)
        operand, x = make_operand(case, weight, mask, self.device, self.threads, self.seed)
        gpu_states = [self._monitor.read()]
        products, measurements = self._prepare(case, operand, x)
        density = float(mask.mean())
        runs = {name: partial(product, x) for name, product in products.items()}
        timed_measurements = self._time(
            case, density, runs, measurements, lambda: gpu_states.append(self._monitor.read())
        )
        in_order = [timed_measurements[name] for name in case.kernels]
        return CaseResult(case, density, in_order, merge_states(gpu_states), self.machine(case.dtype))

    def machine(self, dtype: str) -> dict[str, Any]:
        """Return the description of machine and device, with the peak rates for a dtype if they were measured."""
        peaks = self._peaks.get(dtype)
        rates = (
            {} if peaks is None else {"copy_bytes_per_s": peaks.bytes_per_s, "matrix_flops_per_s": peaks.flops_per_s}
        )
        return describe(self.device, self.threads) | rates

    def _weight_and_mask(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        user_mask = self.masks.get(case.layer.name) if case.purpose == "asked" else None
        key = (case.layer, case.pattern, user_mask is None)
        if self._last is None or self._last[0] != key:
            weight, mask = weight_and_mask(case, self.seed)
            self._last = key, (weight, mask if user_mask is None else check_mask(user_mask, case))
        return self._last[1]

    def _prepare(self, case: Case, operand: Operand, x: torch.Tensor) -> tuple[Products, dict[str, Measurement]]:
        """Prepare and check the kernels that can run.

        Returns:
            The products to time, without those that failed or are wrong, and the measurements of all kernels, without
            times.
        """
        products: Products = {}
        measurements: dict[str, Measurement] = {}
        masked_reference = reference(operand.matrix, x, case.dtype)
        unmasked_reference = reference(operand.unmasked, x, case.dtype)
        for name in case.kernels:
            reason = self._obstacles[name]
            if reason is not None:
                measurements[name] = Measurement(name, "skipped", reason)
                continue
            try:
                product, measurement = prepare(self.kernels[name], operand, self.clock)
                expected = unmasked_reference if name == "dense" else masked_reference
                error = expected.error(product(x))
            except Exception as exception:  # noqa: BLE001 - the other kernels are still measured
                log.warning("kernel %s failed at %s: %s", name, case, exception)
                measurements[name] = Measurement(name, "failed", f"{type(exception).__name__}: {exception}"[:500])
                continue
            # JSON has no infinity.
            measurements[name] = replace(measurement, error=error if math.isfinite(error) else None)
            if error > 1.0:
                measurements[name] = replace(measurements[name], outcome="failed", reason=_wrong_result_reason(error))
            else:
                products[name] = product
        return products, measurements

    def _time(
        self,
        case: Case,
        density: float,
        runs: Runs,
        measurements: Mapping[str, Measurement],
        after_round: AfterRound,
    ) -> dict[str, Measurement]:
        if not runs:
            return dict(measurements)
        peaks = self._peaks_of(case.dtype)
        eager, graph = self.clock.time(runs, self.rounds, after_round)
        timed_measurements = dict(measurements)
        for name in runs:
            eager_speedup = speedup(eager, name)
            measurement = replace(measurements[name], eager=summary(eager[name]), eager_speedup=eager_speedup)
            measurement = replace(measurement, speedup=eager_speedup)
            if name in graph:
                measurement = replace(measurement, graph=summary(graph[name]))
                if "dense" in graph:
                    measurement = replace(measurement, speedup=speedup(graph, name))
            assert measurement.timing is not None
            assert measurement.weight_bytes is not None
            # The baselines multiply by the zeros, too.
            work_share = 1.0 if name in BASELINES else density
            least_s = peaks.least_s(case, work_share, measurement.weight_bytes)
            timed_measurements[name] = replace(measurement, roofline=least_s / measurement.timing.median_s)
        return timed_measurements

    def _peaks_of(self, dtype: str) -> Peaks:
        if dtype not in self._peaks:
            self._peaks[dtype] = measure(self.device, dtype, self.clock)
        return self._peaks[dtype]


def _wrong_result_reason(error: float) -> str:
    if math.isinf(error):
        return "wrong result: it contains NaN, or it has the wrong shape"
    return f"wrong result: the error is {error:.3g} times the largest possible rounding error"


def prepare(kernel: Kernel, operand: Operand, clock: Clock) -> tuple[Product, Measurement]:
    """Pack a weight, tune the kernel, and select its fastest implementation; the first two steps are timed.

    On a CUDA device, each of the two times ends when the device has done the work of the step.
    """
    device = operand.sample.device
    synchronise(device)
    started = time.perf_counter()
    packed = kernel.pack(operand)
    synchronise(device)
    packed_at = time.perf_counter()
    notes = dict(packed.notes) | ({} if packed.tune is None else dict(packed.tune()))
    synchronise(device)
    tune_s = None if packed.tune is None else time.perf_counter() - packed_at
    product_name, product = fastest(packed.ways, operand.sample, clock if isinstance(clock, CudaClock) else None)
    if len(packed.ways) > 1:
        notes["way"] = product_name
    name, pack_s = kernel.declaration.name, packed_at - started
    return product, Measurement(
        name, "measured", pack_s=pack_s, tune_s=tune_s, weight_bytes=packed.weight_bytes, notes=notes
    )


def summary(seconds: Sequence[float]) -> Timing:
    """Return the median and the quantiles 0.2 and 0.8 of a kernel's times in all rounds."""
    p20, p80 = (float(value) for value in np.quantile(seconds, (0.2, 0.8)))
    return Timing(statistics.median(seconds), p20, p80, len(seconds))


def speedup(seconds: Seconds, name: str) -> float | None:
    """Return the median dense time divided by the kernel's median time; None if dense was not measured."""
    return statistics.median(seconds["dense"]) / statistics.median(seconds[name]) if "dense" in seconds else None


def _uuid(device: str) -> str:
    return "" if device == "cpu" else str(torch.cuda.get_device_properties(device).uuid)
