"""Measures benchmark cases, one at a time, with exclusive use of the device."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from masksmith.benchmark import BenchmarkError, CaseResult, Kernel, all_kernels, obstacle_of
from masksmith_state.blobs.names import result_name
from masksmith_state.device_locks import locks
from masksmith_state.errors import DamagedBlobError
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
    """Measures benchmark cases; takes the same arguments as `PartRunner`.

    The `Bench` of the latest job is kept, so that the peak speeds of the device, and the data that the job's cases
    share, are prepared once.
    """

    _bench: tuple[str, Bench] | None = None

    @cached_property
    def kernels(self) -> Mapping[str, Kernel]:
        """The kernels of this installation, by name."""
        return all_kernels()

    def hold_device(self) -> AbstractContextManager[object]:
        """Acquire nothing: `work` acquires the device later, when the case is taken and the job is shown as running."""
        return nullcontext()

    def error_report(self, error: TensorError) -> CaseReport:
        """Report of a failed case."""
        return CaseReport(error=error)

    def work(self, lease: Lease, taken_at: float, check: Check) -> CaseReport:
        """Measure a case when the device is free; repeat the measurement if the device's lock was lost meanwhile."""
        record, planned = self.records.read(lease.job), self.records.case(lease.job, lease.shard)
        if record is None or record.benchmark is None or planned is None:
            raise StoppedError
        case = CaseResult.read_case(planned.case)
        try:
            bench = self._bench_of(lease.job, record.benchmark)
            result = self._measure_exclusively(bench, case, check)
        except (BenchmarkError, FileNotFoundError, DamagedBlobError) as error:
            tensor_error = TensorError(code=_code_of(error), message=str(error))
            return self._with_event(lease, str(case), CaseReport(error=tensor_error))
        report = CaseReport(result=result.document())
        if not result.measured:
            reasons = (f"{measurement.kernel}: {measurement.reason}" for measurement in result.measurements)
            message = result.error or "; ".join(reasons)
            report.error = TensorError(code=Code.KERNEL_REFUSED, message=f"{case}: nothing was measured: {message}")
        return self._with_event(lease, str(case), report)

    def _measure_exclusively(self, bench: Bench, case: Any, check: Check) -> CaseResult:
        if self.device_lock is None:
            return bench.measure(case)
        while True:
            with self.device_lock.exclusive(check) as is_still_held:
                started_at = time.monotonic()
                result = bench.measure(case)
                if is_still_held():
                    return result
            if time.monotonic() - started_at >= locks.EXCLUSIVE_LIMIT_S:
                detail = f"a benchmark may hold the device for {locks.EXCLUSIVE_LIMIT_S:g} s, and this case took longer"
                raise BenchmarkError("kernel_refused", f"{case}: {detail}; request a smaller batch, or fewer rounds")
            log.warning("%s: the lock of the device was lost during the measurement; measuring again", case)
            check()

    def _with_event(self, lease: Lease, name: str, report: CaseReport) -> CaseReport:
        """Add an event for a finished case, measured or failed, to the job, and return the case's report."""
        data: dict[str, Any] = {"case": name, "error": report.error and report.error.message}
        self.records.add_event(lease, "case", data)
        return report

    def _bench_of(self, job: str, plan: BenchmarkPlan) -> Bench:
        if self._bench is None or self._bench[0] != job:
            options = plan.options
            masks_by_layer = {name: self._mask(mask) for name, mask in plan.masks.items()}
            # Release the previous bench first: both benches together may exceed the memory of the device.
            self._bench = None
            from masksmith.benchmark import Bench

            bench = Bench(self.kernels, self.device, options.rounds, options.threads, options.seed, masks_by_layer)
            self._bench = job, bench
        return self._bench[1]

    def _mask(self, planned: PlannedMask) -> npt.NDArray[np.bool_]:
        """Read a mask of an earlier job from the store."""
        parts = []
        for part in planned.parts:
            shape = (part.rows, planned.cols)
            packed = np.frombuffer(self.store.get(result_name(part.result), part.digest), np.uint8)
            if packed.size != masks.packed_bytes(shape):
                # `get` has checked that the bytes are those that were written, so a mask of another size was written.
                raise DamagedBlobError(result_name(part.result), is_set_aside=False)
            parts.append(masks.unpack(packed, shape))
        return np.concatenate(parts)


def _code_of(error: BenchmarkError | FileNotFoundError | DamagedBlobError) -> Code:
    """Return the error code; an error other than `BenchmarkError` comes from reading a mask of an earlier job."""
    if isinstance(error, BenchmarkError):
        return Code(error.fault)
    return Code.RESULT_DAMAGED if isinstance(error, DamagedBlobError) else Code.RESULT_NOT_FOUND


def bench_worker_document(name: str, device: str, kernels: Mapping[str, Kernel]) -> BenchWorker:
    """The document that announces a benchmark worker: its kernels, and why some of them cannot run on its device."""
    device_type = device.partition(":")[0]
    announced = []
    for kernel in kernels.values():
        is_unsupported = device_type not in kernel.declaration.support
        obstacle = f"it does not run on {device_type}" if is_unsupported else obstacle_of(kernel, device)
        announced.append(AnnouncedKernel(declaration=kernel.declaration.document(), obstacle=obstacle))
    return BenchWorker(name=name, device=device, kernels=announced)
