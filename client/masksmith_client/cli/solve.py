"""`masksmith solve`: compute the masks of a checkpoint and write a masks file."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from masksmith_client._client import Client
from masksmith_client._errors import InputError, JobFailedError, NotFound
from masksmith_client._job_view import JobView
from masksmith_client._jobs import Job
from masksmith_client.submission.options import SubmitOptions
from masksmith_client.submission.prepare import prepare
from masksmith_wire.documents import SolverName
from masksmith_wire.quantities import count_text

from .checkpoint_options import (
    AxisOption,
    CalibrationOption,
    LayoutOption,
    RaggedOption,
    ScoresOption,
    TrustOption,
    UpdateOption,
    parse_layouts,
)
from .console import JsonOption, UrlOption, print_note
from .naming import LabelOption, NameOption, PriorityOption, read_labels
from .outputs import check_not_an_input, check_output, check_weights_output, weights_written_to
from .report import SolveReport, show_measures
from .service import interrupt_hint, note_waiting
from .standard_output import is_standard_output, redirect_report, written_to


def solve(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .safetensors file, a *.index.json, or a directory.")],
    pattern: Annotated[
        list[str],
        typer.Option(
            "--pattern", "-p", metavar="[GLOB=]PATTERN", help="'2:4', 'transposable 8:16' (n kept); repeatable."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Masks file to write; - for standard output.")],
    url: UrlOption = None,
    local: Annotated[bool, typer.Option("--local", help="Solve in this process, without a service.")] = False,
    solver: Annotated[SolverName, typer.Option("--solver", "-s")] = "auto",
    scores: ScoresOption = "magnitude",
    calibration: CalibrationOption = None,
    budget: Annotated[
        str | None, typer.Option(metavar="SHARE%", help="Density of all weights together, allocated to them.")
    ] = None,
    floors: Annotated[
        list[str] | None,
        typer.Option("--floor", metavar="GLOB=SHARE%", help="Minimum density of the weights that match; repeatable."),
    ] = None,
    update: UpdateOption = None,
    weights_out: Annotated[
        Path | None,
        typer.Option(
            "--weights-out",
            metavar="FILE|DIR",
            help="File of updated weights, - for standard output, or directory for a copy of the model with them.",
        ),
    ] = None,
    previous: Annotated[
        str | None, typer.Option(metavar="JOB|FILE|s3://...", help="Previous masks: the report counts changed entries.")
    ] = None,
    spectrum: Annotated[bool, typer.Option(help="Measure singular values of the masked weights.")] = False,
    measures: Annotated[bool, typer.Option(help="Show fill, storage, diversity, changes.")] = False,
    layers: Annotated[
        list[str] | None, typer.Option("--layers", metavar="GLOB", help="Only these weights; repeatable.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Without these weights.")
    ] = None,
    layout: LayoutOption = None,
    trust_remote_code: TrustOption = False,
    axis: AxisOption = "in",
    ragged: RaggedOption = "pad",
    view: Annotated[
        Literal["channels-last", "flat"], typer.Option(help="How convolutions are viewed as matrices.")
    ] = "channels-last",
    time_limit_s: Annotated[
        float | None, typer.Option("--time-limit", metavar="SECONDS", help="Time limit of the job, from its start.")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Timeout of the wait.")
    ] = None,
    name: NameOption = None,
    label: LabelOption = None,
    priority: PriorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best masks for the weights of a checkpoint."""
    check_output(output, as_json=as_json)
    check_not_an_input(output, (calibration, previous), model=path)
    if weights_out is not None:
        check_weights_output(weights_out, path, as_json=as_json)
        check_not_an_input(weights_out, (calibration, previous), model=path)
    _check_update(update, weights_out, output)
    options = SubmitOptions(
        solver=solver,
        scores=scores,
        calibration=calibration,
        budget=budget,
        floors=floors or [],
        previous=previous,
        spectrum=spectrum,
        update=update,
        axis=axis,
        ragged=ragged,
        view=view,
        layers=layers,
        exclude=exclude,
        layout=parse_layouts(layout),
        trust_remote_code=trust_remote_code,
        time_limit_s=time_limit_s,
        name=name,
        labels=read_labels(label),
        priority=priority,
    )
    started = time.monotonic()
    weights_context = nullcontext() if weights_out is None else weights_written_to(weights_out, path)
    with written_to(output) as masks_file, weights_context as weights_file:
        if local:
            from .local import solve_locally

            prepared = prepare(path, pattern, local=True, **options)
            report = solve_locally(prepared, masks_file, started, weights_file)
        else:
            with Client(url) as client:
                job = client.jobs.submit(path, pattern, progress="lines", **options)
                note_waiting(job)
                report = _solve_remotely(job, masks_file, started, timeout_s)
                if weights_file is not None and report.output is not None:
                    job.weights().save(weights_file)
                    report = replace(report, weights=str(weights_file))
    if report.output is not None:
        # The files that were written may be temporary; the report names what the user named.
        report = replace(report, output=str(output), weights=None if weights_out is None else str(weights_out))
    with redirect_report(weights_out if is_standard_output(weights_out) else output):
        report.show(as_json=as_json)
        if not as_json and (measures or previous is not None or spectrum):
            show_measures(report.tensors)
    if report.failures:
        print_note(
            f"masksmith: {count_text(len(report.failures))} of {count_text(len(report.tensors))} tensor(s) have no mask"
        )
        raise typer.Exit(1)


def _solve_remotely(job: Job, output: Path, started: float, timeout_s: float | None) -> SolveReport:
    """Wait for a job and save its masks; a job of which some tensors failed is no error."""
    try:
        with interrupt_hint(job):
            job.wait(timeout_s, progress="lines")
    except JobFailedError:
        if not any(report.error for report in job.document.tensors):
            raise
    is_saved = _save_masks(job, output)
    return remote_report(job, str(output) if is_saved else None, time.monotonic() - started)


def remote_report(job: JobView, output: str | None, wall_s: float) -> SolveReport:
    """Return the report of a service's job: `output` is the masks file, `wall_s` the duration in seconds."""
    document = job.document
    return SolveReport(
        document.pattern,
        document.solver,
        document.tensors,
        job.skipped,
        output,
        wall_s,
        job.id,
        document.budget,
        document.budget_gap,
        notes=job.notes,
    )


def _save_masks(job: Job, output: Path) -> bool:
    """Write the masks of a job; returns whether it has any."""
    try:
        masks = job.masks()
    except NotFound:
        return False
    if masks:
        masks.save(output)
    return bool(masks)


def _check_update(update: str | None, weights: Path | None, output: Path) -> None:
    if (update is None) != (weights is None):
        raise InputError("--update and --weights-out must be used together: the method, and the file to write")
    if weights is not None and weights.absolute() == output.absolute():
        raise InputError(f"{output} is given for both masks and weights; name two files")
