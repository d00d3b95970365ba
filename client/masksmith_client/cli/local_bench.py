"""`masksmith bench --local`: measure kernels in this process."""

from __future__ import annotations

from typing import Any

from masksmith.benchmark import BenchmarkError, CaseResult, Report
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client._progress import Bar
from masksmith_client.submission.benchmarks import request_layers
from masksmith_wire.benchmarks import BenchmarkRequest

from .local import import_library

STARTING = "preparing the first case"
COMPILING = "compiling kernels, once for this machine"


def bench_locally(request: BenchmarkRequest, device: str) -> Report:
    """Run a benchmark in this process, on a device such as `cpu` or `cuda:1`.

    Raises:
        InputError: If the request is invalid or needs a service, if a kernel cannot run on the device, or if a package
            is not installed.
    """
    if request.masks_of is not None:
        raise InputError("--masks-of needs a service; with --local use --model or --shapes")
    masksmith = import_library()
    with as_input_errors(masksmith.MissingExtraError):
        from masksmith.benchmark import benchmark

    option_names = {"batches", "dtypes", "directions", "kernels", "curves", "rounds", "threads", "seed"}
    options: dict[str, Any] = request.model_dump(include=option_names)
    with Bar("measuring", 0, show="lines", unit="case", note=STARTING) as bar:

        def on_case(result: CaseResult, done: int, total: int) -> None:
            bar.note("")  # Show the count instead of a note.
            bar.move_to(done, total)

        def on_compilation() -> None:
            bar.note(COMPILING)

        with as_input_errors(BenchmarkError):
            return benchmark(
                request_layers(request),
                request.patterns,
                device=device,
                on_case=on_case,
                on_compilation=on_compilation,
                **options,
            )
