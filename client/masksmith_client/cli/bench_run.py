"""The steps of `masksmith bench`: check the options, and measure in this process or by a service."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from masksmith.benchmark import Report
from masksmith_client._errors import InputError
from masksmith_client.submission.benchmarks import prepare_benchmark
from masksmith_wire.benchmarks import BenchmarkRequest
from masksmith_wire.priorities import PriorityName

from .bench_report import check_report_outputs
from .naming import check_no_job_options, read_labels
from .outputs import check_not_an_input
from .service import interrupt_hint, note_waiting, patient_client

MAX_DIGITS = 18
"""Maximum number of digits of a batch size, far above that of any size that is accepted."""


class BenchOptions(TypedDict):
    """What to measure, and name, labels and priority of the job if a service measures.

    Names are those of the command's options. `shapes`, `patterns`, `batch`, `dtypes`, `directions` and `kernels` are
    strings of comma-separated values.
    """

    model: str | None
    shapes: str | None
    masks_of: str | None
    patterns: str
    batch: str
    dtypes: str
    directions: str
    kernels: str | None
    device: str
    layers: list[str] | None
    exclude: list[str] | None
    curves: bool
    rounds: int
    threads: int
    seed: int
    name: str | None
    label: list[str] | None
    priority: PriorityName | None


def measure(
    options: BenchOptions, outputs: Sequence[Path], *, local: bool, url: str | None, timeout_s: float | None
) -> Report:
    """Measure what the options name, in this process if `local`, else by a service; return the report.

    Raises:
        InputError: If the options are invalid, or an output cannot be written.
        JobFailedError, StatusError, TransportError: As in `Client.benchmark`, if a service measures.
    """
    check_report_outputs(outputs)
    if local:
        check_no_job_options(options["name"], options["label"], options["priority"], timeout_s)
    if options["model"] is not None:
        for path in outputs:
            check_not_an_input(path, model=Path(options["model"]))
    # A request accepts only `cpu` or `cuda`. With `--local`, the number of a device such as `cuda:1` is removed here;
    # `bench_locally` gets it. Without `--local` it stays, and `prepare_benchmark` refuses it.
    device = options["device"].partition(":")[0] if local else options["device"]
    request = _request(options, device)
    if local:
        from .local_bench import bench_locally

        return bench_locally(request, options["device"])
    with patient_client(url) as client:
        job = client.jobs.submit_request(request)
        note_waiting(job)
        with interrupt_hint(job):
            return job.wait_for_report(timeout_s, progress="lines")


def _request(options: BenchOptions, device: str) -> BenchmarkRequest:
    model, shapes, kernels = options["model"], options["shapes"], options["kernels"]
    if shapes is not None and model is not None:
        raise InputError("--model and --shapes contradict each other; give one")
    return prepare_benchmark(
        _split(shapes) if shapes is not None else model,
        _split(options["patterns"]),
        masks_of=options["masks_of"],
        layers=options["layers"],
        exclude=options["exclude"],
        device=device,
        batches=[_parse_batch(text) for text in _split(options["batch"])],
        dtypes=_split(options["dtypes"]),
        directions=_split(options["directions"]),
        kernels=None if kernels is None else _split(kernels),
        curves=options["curves"],
        rounds=options["rounds"],
        threads=options["threads"],
        seed=options["seed"],
        name=options["name"],
        labels=read_labels(options["label"]),
        priority=options["priority"] or "normal",
    )


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_batch(text: str) -> int:
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise InputError(
            f"--batch: {text[:80]!r} is not a whole number of at most {MAX_DIGITS} digits; use numbers such as 1,32,256"
        )
    return int(text)
