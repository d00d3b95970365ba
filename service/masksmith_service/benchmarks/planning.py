"""Plans the cases of a benchmark request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from masksmith.benchmark import MODELS, BenchmarkError, Layer, Request, group, plan
from masksmith_service.errors import RequestError
from masksmith_service.jobs.results import finished_tensors
from masksmith_state.jobs.model import JobRecord
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.reports import ShardReport
from masksmith_state.jobs.shards import Shard
from masksmith_wire.benchmarks import (
    BenchmarkOptions,
    BenchmarkPlan,
    BenchmarkRequest,
    PlannedCase,
    PlannedMask,
    PlannedMaskPart,
)
from masksmith_wire.errors import Code

from .kernels import check_runnable, declarations


@dataclass(frozen=True)
class PlannedBenchmark:
    """A benchmark's plan and its cases."""

    plan: BenchmarkPlan
    cases: list[PlannedCase]


def plan_benchmark(request: BenchmarkRequest, records: JobRecords) -> PlannedBenchmark:
    """Plan the cases of a request, without creating a job.

    Raises:
        RequestError: If the request is invalid; if it names a kernel that live workers announce, but none of them can
            run; or if the masks cannot be measured.
    """
    workers = records.bench_workers.live()
    masks: dict[str, PlannedMask] = {}
    if request.masks_of is not None:
        layers, pattern, masks = _layers_pattern_masks(request.masks_of, records)
        request = request.model_copy(update={"patterns": [pattern]})
    else:
        layers = _layers(request)
    options = BenchmarkOptions(**request.model_dump(include=set(BenchmarkOptions.model_fields)))
    try:
        cases = plan(_library_request(options, layers), declarations(workers))
    except BenchmarkError as error:
        raise RequestError(Code(error.fault), str(error)) from None
    check_runnable(options, workers)
    return PlannedBenchmark(
        BenchmarkPlan(options=options, masks=masks), [PlannedCase(case=asdict(case)) for case in cases]
    )


def benchmark_subject(request: BenchmarkRequest) -> str:
    """Return what a benchmark measures, as the first part of its job's default name."""
    if request.masks_of is not None:
        return f"masks of job {request.masks_of}"
    return request.model or f"{len(request.layers)} layer{'s' if len(request.layers) != 1 else ''}"


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


def _layers_pattern_masks(job: str, records: JobRecords) -> tuple[list[Layer], str, dict[str, PlannedMask]]:
    """Return the layers and the pattern of an ended job, and the masks to measure: the first of each shape, by layer.

    Only masks of two-dimensional weights without a layout of their own are taken.

    Raises:
        RequestError: If there is no such job, it has not ended, it has no such mask, or its masks cannot be measured.
    """
    record = records.read(job)
    if record is None:
        raise RequestError(Code.JOB_NOT_FOUND, f"there is no job {job!r}; GET /v1/jobs lists them")
    _check_measurable(record)
    masks = {
        tensor.name: PlannedMask(rows=tensor.shape[0], cols=tensor.shape[1], parts=_mask_parts(shards))
        for tensor, shards in finished_tensors(record, records)
        if len(tensor.shape) == 2 and tensor.layout is None
    }
    if not masks:
        raise RequestError(Code.RESULT_NOT_FOUND, f"job {job} has no mask of a two-dimensional weight")
    layers = group((name, mask.rows, mask.cols) for name, mask in masks.items())
    return layers, record.plan.patterns[0], {layer.name: masks[layer.name] for layer in layers}


def _check_measurable(record: JobRecord) -> None:
    options = record.plan.options
    if not record.state.is_terminal:
        detail = f"job {record.id} is {record.state}; its masks can be measured once it has ended"
        raise RequestError(Code.JOB_NOT_FINISHED, detail, retry_after_s=1)
    if options.axis != "in" or options.budget is not None or len(record.plan.patterns) > 1:
        detail = f"job {record.id}: only masks of one pattern along axis 'in' can be measured"
        raise RequestError(Code.INVALID_MASK, detail)


def _mask_parts(shards: Sequence[tuple[Shard, ShardReport]]) -> list[PlannedMaskPart]:
    return [
        PlannedMaskPart(result=str(report.result), rows=shard.last - shard.first, digest=report.mask_digest)
        for shard, report in shards
    ]
