"""Plans benchmark cases from requests, and builds reports from case results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from masksmith.benchmark import (
    MODELS,
    BenchmarkError,
    CaseResult,
    Declaration,
    Layer,
    Report,
    Request,
    group,
    own_kernels,
    plan,
)
from masksmith_service.errors import RequestError
from masksmith_service.jobs.results import finished_tensors
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.unreadable_records import reading
from masksmith_wire.benchmarks import (
    BenchmarkOptions,
    BenchmarkPlan,
    BenchmarkRequest,
    BenchWorker,
    CaseReport,
    KernelInfo,
    KernelPlace,
    PlannedCase,
    PlannedMask,
    PlannedMaskPart,
)
from masksmith_wire.errors import Code


@dataclass(frozen=True)
class PlannedBenchmark:
    """A benchmark's plan and its cases."""

    plan: BenchmarkPlan
    cases: list[PlannedCase]


def plan_benchmark(request: BenchmarkRequest, records: JobRecords) -> PlannedBenchmark:
    """Plan the cases of a request, without creating a job.

    Raises:
        RequestError: If a kernel, shape, dtype, pattern or the masks are invalid; the message says which.
    """
    workers = records.bench_workers.live()
    masks: dict[str, PlannedMask] = {}
    if request.masks_of is not None:
        layers, pattern, masks = _masks_of(request.masks_of, records)
        request = request.model_copy(update={"patterns": [pattern]})
    else:
        layers = _layers(request)
    options = BenchmarkOptions(**request.model_dump(include=set(BenchmarkOptions.model_fields)))
    try:
        cases = plan(_library_request(options, layers), declarations(workers))
    except BenchmarkError as error:
        raise RequestError(Code(error.fault), str(error)) from None
    _check_runnable(options, workers)
    return PlannedBenchmark(
        BenchmarkPlan(options=options, masks=masks), [PlannedCase(case=asdict(case)) for case in cases]
    )


def benchmark_subject(request: BenchmarkRequest) -> str:
    """What a benchmark is about, for the name of its job."""
    if request.masks_of is not None:
        return f"masks of job {request.masks_of}"
    return request.model or f"{len(request.layers)} layer{'s' if len(request.layers) != 1 else ''}"


def declarations(workers: Sequence[BenchWorker]) -> dict[str, Declaration]:
    """Declarations of all kernels of masksmith and of live workers, by name."""
    by_name = {name: kernel.declaration for name, kernel in own_kernels().items()}
    for worker in workers:
        for kernel in worker.kernels:
            declaration = Declaration.read(kernel.declaration)
            by_name.setdefault(declaration.name, declaration)
    return by_name


def kernel_infos(workers: Sequence[BenchWorker]) -> list[KernelInfo]:
    """Documents of all kernels, and where they run."""
    infos = []
    for declaration in declarations(workers).values():
        places = [
            KernelPlace(worker=worker.name, device=worker.device, runs=kernel.obstacle is None, reason=kernel.obstacle)
            for worker in workers
            for kernel in worker.kernels
            if kernel.declaration["name"] == declaration.name
        ]
        infos.append(KernelInfo(**declaration.document(), workers=places))
    return infos


def read_report(record: JobRecord, records: JobRecords) -> Report:
    """Build the report of a benchmark from the finished cases.

    Raises:
        RequestError: If the job is not a benchmark, or was deleted after its record was read.
    """
    if record.benchmark is None:
        raise RequestError(Code.RESULT_NOT_FOUND, f"job {record.id} is not a benchmark; its masks: .../masks")
    cases = records.cases(record.id)
    if not cases:
        raise RequestError(Code.JOB_NOT_FOUND, f"job {record.id} was deleted meanwhile")
    with reading(record.id):
        reports = sorted(records.case_reports(record.id).items())
        results = [case_result(cases[index], report) for index, report in reports]
    settings = record.benchmark.options.model_dump(include={"device", "rounds", "threads", "seed"})
    return Report(results, settings | {"job": record.id})


def case_result(planned: PlannedCase, report: CaseReport) -> CaseResult:
    """Parse a case's result; a case that failed as a whole has only an error."""
    if report.result is not None:
        return CaseResult.read(report.result)
    case = CaseResult.read_case(planned.case)
    return CaseResult(case, case.rule.density, [], error=report.error.message if report.error else "failed")


def _library_request(options: BenchmarkOptions, layers: Sequence[Layer]) -> Request:
    fields = options.model_dump(include={"patterns", "batches", "dtypes", "directions", "kernels", "device", "curves"})
    return Request(layers=layers, **fields)


def _layers(request: BenchmarkRequest) -> list[Layer]:
    if request.model is None:
        return [Layer(**layer.model_dump()) for layer in request.layers]
    if request.model not in MODELS:
        detail = f"model {request.model!r} is not known by name ({', '.join(MODELS)}); give its layers"
        raise RequestError(Code.INVALID_BENCHMARK, detail)
    return MODELS[request.model]


def _masks_of(job: str, records: JobRecords) -> tuple[list[Layer], str, dict[str, PlannedMask]]:
    """Layers, pattern and masks of a finished job; of masks with the same shape, only the first is measured."""
    record = records.read(job)
    if record is None:
        raise RequestError(Code.JOB_NOT_FOUND, f"there is no job {job!r}; GET /v1/jobs lists them")
    options = record.plan.options
    if not record.state.is_terminal:
        detail = f"job {job} is {record.state}; its masks can be measured once it has ended"
        raise RequestError(Code.JOB_NOT_FINISHED, detail, retry_after_s=1)
    if options.axis != "in" or options.budget is not None or len(record.plan.patterns) > 1:
        detail = f"job {job}: only masks of one pattern along axis 'in' can be measured"
        raise RequestError(Code.INVALID_MASK, detail)
    masks: dict[str, PlannedMask] = {}
    for tensor, done in finished_tensors(record, records):
        if len(tensor.shape) == 2 and tensor.layout is None:
            parts = [
                PlannedMaskPart(result=str(report.result), rows=shard.last - shard.first) for shard, report in done
            ]
            masks[tensor.name] = PlannedMask(rows=tensor.shape[0], cols=tensor.shape[1], parts=parts)
    if not masks:
        raise RequestError(Code.RESULT_NOT_FOUND, f"job {job} has no mask of a two-dimensional weight")
    layers = group((name, mask.rows, mask.cols) for name, mask in masks.items())
    return layers, record.plan.patterns[0], {layer.name: masks[layer.name] for layer in layers}


def _check_runnable(options: BenchmarkOptions, workers: Sequence[BenchWorker]) -> None:
    """Reject a named kernel that no live worker of the device can run."""
    candidates = [worker for worker in workers if worker.device.partition(":")[0] == options.device]
    for name in options.kernels or []:
        obstacles = [
            kernel.obstacle for worker in candidates for kernel in worker.kernels if kernel.declaration["name"] == name
        ]
        if obstacles and all(obstacles):
            detail = f"kernel {name!r} cannot run on {options.device} here: {obstacles[0]}"
            raise RequestError(Code.KERNEL_REFUSED, detail, kernel=name)
