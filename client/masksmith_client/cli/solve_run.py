"""The steps of `masksmith solve`: check the files, solve locally or by a service, show the report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import typer

from masksmith_client._errors import InputError, JobFailedError, NotFound
from masksmith_client._job_view import JobView
from masksmith_client._jobs import Job
from masksmith_client.checkpoints.copy import is_folder_output
from masksmith_client.submission.options import SubmitOptions
from masksmith_client.submission.prepare import prepare
from masksmith_wire.quantities import count_text

from .console import print_note
from .outputs import (
    check_model_is_still_found,
    check_not_an_input,
    check_tensor_output,
    check_weights_output,
    weights_written_to,
)
from .report import SolveReport, show_measures
from .service import interrupt_hint, note_waiting, patient_client
from .standard_output import is_standard_output, redirect_report, written_to


def check_files(
    path: Path, output: Path, weights_out: Path | None, inputs: Iterable[object], *, update: str | None, as_json: bool
) -> None:
    """Check, before any work, that `output` and `weights_out` can be written and are not inputs.

    Raises:
        InputError: If one of them cannot be written, is an input, or would count as weights of the model; if both are
            the same file; if `weights_out` is a directory and `output` is in it; or if only one of `update` and
            `weights_out` is given.
    """
    inputs = tuple(inputs)
    check_tensor_output(output, as_json=as_json)
    check_model_is_still_found(output, path)
    check_not_an_input(output, inputs, model=path)
    if weights_out is not None:
        check_weights_output(weights_out, path, as_json=as_json)
        check_not_an_input(weights_out, inputs, model=path)
        _check_not_in_folder(output, weights_out, path)
    _check_combination(update, weights_out, output)


def run(
    path: Path,
    patterns: Sequence[str],
    output: Path,
    weights_out: Path | None,
    options: SubmitOptions,
    *,
    url: str | None,
    local: bool,
    timeout_s: float | None,
) -> SolveReport:
    """Solve the masks of a checkpoint, write the files if any tensor has a mask, and return the report."""
    started = time.monotonic()
    weights_context = nullcontext() if weights_out is None else weights_written_to(weights_out, path)
    with written_to(output) as masks_file, weights_context as weights_file:
        if local:
            from .local import solve_locally

            prepared = prepare(path, patterns, local=True, **options)
            report = solve_locally(prepared, masks_file, started, weights_file)
        else:
            with patient_client(url) as client:
                job = client.jobs.submit(path, patterns, progress="lines", **options)
                note_waiting(job)
                _wait(job, timeout_s)
                report = _save_results(job, masks_file, weights_file, started)
    if report.output is not None:
        # For `-` and for a directory, the file that was written is temporary; the report has the user's paths.
        report = replace(report, output=str(output), weights=None if weights_out is None else str(weights_out))
    return report


def show(report: SolveReport, output: Path, weights_out: Path | None, *, with_measures: bool, as_json: bool) -> None:
    """Print a report.

    Raises:
        typer.Exit: If a tensor has no mask.
    """
    with redirect_report(weights_out if is_standard_output(weights_out) else output):
        report.show(as_json=as_json)
        if with_measures and not as_json:
            show_measures(report.tensors)
    if report.failures:
        print_note(
            f"masksmith: {count_text(len(report.failures))} of {count_text(len(report.tensors))} tensor(s) have no mask"
        )
        raise typer.Exit(1)


def _wait(job: Job, timeout_s: float | None) -> None:
    """Wait for a job; if it failed because tensors failed, no error is raised: the report has their errors."""
    try:
        with interrupt_hint(job):
            job.wait(timeout_s, progress="lines")
    except JobFailedError:
        if not any(tensor.error for tensor in job.document.tensors):
            raise


def _save_results(job: Job, output: Path, weights_out: Path | None, started: float) -> SolveReport:
    """Write the masks of a job, and its updated weights if `weights_out` is not None, and return the report.

    If the job has no masks, nothing is written.
    """
    try:
        masks = job.masks()
    except NotFound:
        return remote_report(job, None, time.monotonic() - started)
    with closing(masks):
        if not masks:
            return remote_report(job, None, time.monotonic() - started)
        masks.save(output)
        report = remote_report(job, str(output), time.monotonic() - started)
        if weights_out is None:
            return report
        # The weights are checked against these masks, which are not downloaded again for that.
        with closing(job.weights(masks)) as weights:
            weights.save(weights_out)
    return replace(report, weights=str(weights_out))


def remote_report(job: JobView, output: str | None, wall_s: float) -> SolveReport:
    """Return the report of a service's job.

    Args:
        job: The job.
        output: The masks file; None if none was written.
        wall_s: Seconds that the report gives as the duration.
    """
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


def _check_not_in_folder(output: Path, weights_out: Path, model: Path) -> None:
    """Refuse masks in the directory of a model's copy, which must be empty when the copy is written after the masks."""
    if is_standard_output(output) or not is_folder_output(weights_out, model):
        return
    if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(weights_out)):
        raise InputError(f"{output} is in {weights_out}, which must be empty; write the masks elsewhere")


def _check_combination(update: str | None, weights_out: Path | None, output: Path) -> None:
    if (update is None) != (weights_out is None):
        raise InputError("--update and --weights-out must be used together: the method, and the file to write")
    if weights_out is not None and os.path.realpath(weights_out) == os.path.realpath(output):
        raise InputError(f"{output} is given for both masks and weights; name two files")
