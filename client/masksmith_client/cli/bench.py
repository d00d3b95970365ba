"""`masksmith bench`: measure sparse kernels against dense ones; print tables and conclusions, write files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from masksmith.benchmark import Report
from masksmith_client._client import Client
from masksmith_client._errors import InputError
from masksmith_client.results.atomic_write import atomic_write
from masksmith_client.submission.benchmarks import prepare_benchmark

from .console import JsonOption, UrlOption, print_json, print_line, print_note, show_table
from .naming import LabelOption, NameOption, PriorityOption, read_labels
from .outputs import check_not_an_input, check_output
from .service import interrupt_hint, note_waiting

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
SUFFIXES = (".json", ".csv", ".md", *PLOT_SUFFIXES)


def bench(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME|PATH", help="MiniLM, Llama-3.1-8B, ..., or a checkpoint."),
    ] = None,
    shapes: Annotated[
        str | None, typer.Option("--shapes", metavar="OUTxIN[*N],...", help="Shapes of layers, and number of each.")
    ] = None,
    masks_of: Annotated[str | None, typer.Option("--masks-of", metavar="JOB", help="The masks of a job.")] = None,
    patterns: Annotated[
        str, typer.Option("--patterns", "-p", metavar="A,B,...", help="Such as '2:4,block 16x16 25%,10%' (kept).")
    ] = "",
    batch: Annotated[str, typer.Option("--batch", "-b", metavar="N,M,...", help="Rows of activations.")] = "1,32,256",
    dtypes: Annotated[str, typer.Option("--dtypes", metavar="A,B,...", help="float32, bfloat16, ...")] = "float32",
    directions: Annotated[
        str, typer.Option("--directions", metavar="A,B", help="forward (X W^T), backward (dY W).")
    ] = "forward",
    kernels: Annotated[
        str | None, typer.Option("--kernels", metavar="A,B,...", help="Default: all that support device and pattern.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda; with --local cuda:N too.")] = "cpu",
    layers: Annotated[list[str] | None, typer.Option("--layers", metavar="GLOB", help="Only these weights.")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Without these weights.")
    ] = None,
    curves: Annotated[
        bool, typer.Option("--curves/--no-curves", help="Also measure other densities, to find the break-even.")
    ] = True,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Repetitions of each measurement.")] = 15,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of a kernel on a CPU.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Random seed of weights and activations.")] = 0,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Repeatable; the suffix decides: {', '.join(SUFFIXES)}."),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Measure in this process, without a service.")] = False,
    url: UrlOption = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="Timeout of the wait.")
    ] = None,
    name: NameOption = None,
    label: LabelOption = None,
    priority: PriorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the speed-up of masks: sparse kernels against dense ones, for a model's layers or for shapes."""
    check_report_outputs(output or [])
    if model is not None:
        for path in output or ():
            check_not_an_input(path, model=Path(model))
    if shapes is not None and model is not None:
        raise InputError("--model and --shapes contradict each other; give one")
    options: dict[str, Any] = {
        "batches": [_parse_batch(text) for text in _split(batch)],
        "dtypes": _split(dtypes),
        "directions": _split(directions),
        "kernels": None if kernels is None else _split(kernels),
        "curves": curves,
        "rounds": rounds,
        "threads": threads,
        "seed": seed,
        "name": name,
        "labels": read_labels(label),
        "priority": priority or "normal",
    }
    request = prepare_benchmark(
        _split(shapes) if shapes is not None else model,
        _split(patterns),
        masks_of=masks_of,
        layers=layers,
        exclude=exclude,
        device=device.partition(":")[0] if local else device,
        **options,
    )
    if local:
        from .local_bench import bench_locally

        report = bench_locally(request, device)
    else:
        with Client(url) as client:
            job = client.jobs.submit_request(request)
            note_waiting(job)
            with interrupt_hint(job):
                report = job.wait_for_report(timeout_s, progress="lines")
    show_benchmark(report, output or [], as_json=as_json)


def show_benchmark(report: Report, outputs: Sequence[Path], *, as_json: bool) -> None:
    """Write a report to files, and print it; exit code 1 if a measurement failed."""
    for path in outputs:
        save(report, path)
    print_json(report.document()) if as_json else show(report)
    if report.failures:
        print_note(f"masksmith: {len(report.failures)} measurement(s) failed")
        raise typer.Exit(1)


def show(report: Report) -> None:
    """Print a report's tables and its conclusions."""
    for table in report.tables():
        for line in ("", table.title, *table.note.splitlines(), ""):
            print_line(line)
        show_table(table.head, table.rows, left_aligned=table.left)
    print_line()
    for line in report.conclusions():
        print_line(line)
    for name, reason in sorted(report.skipped.items()):
        print_note(f"{name} cannot run here: {reason}")
    for line in report.failures:
        print_note(f"failed: {line}")


def save(report: Report, path: Path) -> None:
    """Write a report, atomically, in the format of the path's suffix."""
    writers: dict[str, Callable[[], str]] = {
        ".json": report.to_json, ".csv": report.to_csv, ".md": report.to_markdown
    }  # fmt: skip
    with atomic_write(path) as file:
        if path.suffix in writers:
            file.write(writers[path.suffix]().encode())
        else:
            from masksmith.benchmark import draw

            draw(report, file, path.suffix[1:])


def check_report_outputs(paths: Sequence[Path]) -> None:
    """Check, before any work, that reports can be written.

    Raises:
        InputError: If a file cannot be written, no format has its suffix, or it is a plot and matplotlib is missing.
    """
    for path in paths:
        check_output(path)
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: the suffix selects the format; use one of {', '.join(SUFFIXES)}")
        if path.suffix in PLOT_SUFFIXES and importlib.util.find_spec("matplotlib") is None:
            raise InputError(f"{path}: plots need matplotlib: pip install 'masksmith[plot]'")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_batch(text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"--batch {text!r} is not a number; use numbers such as 1,32,256")
    return int(text)
