"""`masksmith jobs masks|weights|report`: download the masks or weights of a job that has ended, or print its report.

The functions import the client themselves, so that the help of a command does not import it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import JsonOption, UrlOption, print_note, print_result
from .jobs import UNSUCCESSFUL, JobId

if TYPE_CHECKING:
    from masksmith_client._jobs import Job
    from masksmith_client.results.masks import Masks
    from masksmith_client.results.updated_weights import UpdatedWeights


def masks(
    job: JobId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Masks file to write.")],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download the masks of a job that has ended."""
    from masksmith_client._errors import ClientError

    from .outputs import check_download_output
    from .service import interactive_client

    check_download_output(output)
    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        downloaded = handle.masks()
    if not downloaded:
        raise ClientError(f"job {handle.id} has no masks: none of its tensors was solved")
    _save("masks", handle, downloaded, output, as_json=as_json)


def weights(
    job: JobId,
    output: Annotated[Path, typer.Option("--output", "-o", help="File of updated weights to write.")],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download the updated weights of a job that has ended."""
    from .outputs import check_download_output
    from .service import interactive_client

    check_download_output(output)
    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        downloaded = handle.weights()
    _save("weights", handle, downloaded, output, as_json=as_json)


def _save(kind: str, job: Job, downloaded: Masks | UpdatedWeights, output: Path, *, as_json: bool) -> None:
    """Write the downloaded masks or weights to the output, and print a summary; `kind` is `masks` or `weights`."""
    downloaded.save(output)
    document = {"id": job.id, "output": str(output), kind: list(downloaded)}
    print_result(document, f"{len(downloaded)} {kind.removesuffix('s')}(s) -> {output}", as_json=as_json)


def report(
    job: JobId,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A .json file; for a benchmark also the formats of bench; repeatable.",
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the report of a job that has ended, as `solve` or `bench` prints it; --output also writes it to files.

    Exit code 1 if the job failed or was canceled, or a measurement failed.
    """
    from .bench_report import check_report_outputs, save_and_show
    from .service import interactive_client

    check_report_outputs(output or [])
    with interactive_client(url) as client:
        handle = client.jobs.get(job)
        if handle.document.kind == "benchmark":
            save_and_show(handle.benchmark(), output or [], as_json=as_json)
        else:
            _report_masks(handle, output or [], as_json=as_json)


def _report_masks(job: Job, outputs: Sequence[Path], *, as_json: bool) -> None:
    """Write the report of a masks job to files, and print it; exit code 1 if the job failed or was canceled.

    Raises:
        ClientError: If the job has not ended.
        InputError: If the name of a file does not end in `.json`.
    """
    from masksmith_client._errors import ClientError, InputError
    from masksmith_client.results.atomic_write import atomic_write

    from .job_views import job_seconds
    from .solve_run import remote_report

    if not job.state.is_terminal:
        raise ClientError(f"job {job.id} is {job.state.value}; 'masksmith jobs watch {job.id}' waits for it")
    not_json = next((path for path in outputs if path.suffix != ".json"), None)
    if not_json is not None:
        raise InputError(f"{not_json}: job {job.id} is not a benchmark, and its report is written as .json only")
    masks_report = remote_report(job, None, job_seconds(job.document))
    for path in outputs:
        with atomic_write(path) as file:
            file.write(json.dumps(masks_report.document(), indent=2).encode())
    masks_report.show(as_json=as_json)
    if job.state in UNSUCCESSFUL:
        print_note(f"masksmith: job {job.id} is {job.state.value}")
        raise typer.Exit(1)
