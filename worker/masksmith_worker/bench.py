"""Measures one case of a benchmark, alone on its device. Knows records, store and the library, but no Celery."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masksmith.benchmark import BenchmarkError, CaseResult, Kernel, all_kernels
from masksmith_state.blobs.store import result_name
from masksmith_state.jobs.model import Lease
from masksmith_wire import masks
from masksmith_wire.benchmarks import AnnouncedKernel, BenchmarkPlan, BenchWorker, CaseReport, PlannedMask
from masksmith_wire.errors import Code, TensorError

from .lease import StoppedError
from .part_runner import Check, PartRunner

if TYPE_CHECKING:
    from masksmith.benchmark import Bench

log = logging.getLogger(__name__)


class CaseRunner(PartRunner):
    """Measures cases of benchmarks; takes the same arguments as `PartRunner`.

    Peaks, and what two cases of a job share, are measured once: the bench of the latest job is kept.
    """

    _bench: tuple[str, Bench] | None = None

    @cached_property
    def kernels(self) -> Mapping[str, Kernel]:
        """The kernels of this installation."""
        return all_kernels()

    def place(self, job: str) -> AbstractContextManager[object]:
        """Share nothing yet: the device is waited for under the lease, so that the job shows progress."""
        return nullcontext()

    def failed(self, error: TensorError) -> CaseReport:
        """Make the report of a case that failed."""
        return CaseReport(error=error)

    def work(self, lease: Lease, taken: float, check: Check) -> CaseReport:
        """Measure a case, once the device is free; with company it is measured again."""
        record, planned = self.records.read(lease.job), self.records.case(lease.job, lease.shard)
        if record is None or record.benchmark is None or planned is None:
            raise StoppedError
        case = CaseResult.read_case(planned.case)
        try:
            bench = self._bench_of(lease.job, record.benchmark)
            result = self._alone(bench, case, check)
        except (BenchmarkError, FileNotFoundError) as error:
            code = Code(error.fault) if isinstance(error, BenchmarkError) else Code.RESULT_NOT_FOUND
            return self._report(lease, str(case), CaseReport(error=TensorError(code=code, message=str(error))))
        report = CaseReport(result=result.document())
        if not result.measured:
            message = result.error or "; ".join(f"{one.kernel}: {one.reason}" for one in result.measurements)
            report.error = TensorError(code=Code.KERNEL_REFUSED, message=f"{case}: nothing was measured: {message}")
        return self._report(lease, str(case), report)

    def _alone(self, bench: Bench, case: Any, check: Check) -> CaseResult:
        if self.device_lock is None:
            return bench.measure(case)
        while True:
            with self.device_lock.exclude_others(check) as intact:
                result = bench.measure(case)
                if intact():
                    return result
            log.warning("%s: the device's lease lapsed meanwhile; measuring again", case)
            check()

    def _report(self, lease: Lease, name: str, report: CaseReport) -> CaseReport:
        data: dict[str, Any] = {"case": name, "error": report.error and report.error.message}
        self.records.add_event(lease, "case", data)
        return report

    def _bench_of(self, job: str, plan: BenchmarkPlan) -> Bench:
        if self._bench is None or self._bench[0] != job:
            options, known = plan.options, {name: self._mask(mask) for name, mask in plan.masks.items()}
            # Two benches at once could be more than the device holds.
            self._bench = None
            from masksmith.benchmark import Bench

            bench = Bench(self.kernels, self.device, options.rounds, options.threads, options.seed, known)
            self._bench = job, bench
        return self._bench[1]

    def _mask(self, planned: PlannedMask) -> npt.NDArray[np.bool_]:
        parts = []
        for part in planned.parts:
            shape = (part.rows, planned.cols)
            packed = np.frombuffer(self.store.get(result_name(part.result)), np.uint8)
            if packed.size != masks.packed_bytes(shape):
                raise FileNotFoundError(f"the mask {part.result} is not what it was")
            parts.append(masks.unpack(packed, shape))
        return np.concatenate(parts)


def announcement(name: str, device: str, kernels: Mapping[str, Kernel]) -> BenchWorker:
    """Say which kernels there are, and what keeps which of them from running here."""
    kind = device.partition(":")[0]
    announced = []
    for kernel in kernels.values():
        elsewhere = kernel.declaration.support and kind not in kernel.declaration.support
        obstacle = f"it does not run on {kind}" if elsewhere else kernel.obstacle(device)
        announced.append(AnnouncedKernel(declaration=kernel.declaration.document(), obstacle=obstacle))
    return BenchWorker(name=name, device=device, kernels=announced)
