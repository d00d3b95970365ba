"""`masksmith solve`: compute the masks of a checkpoint and write a masks file, and updated weights on request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from masksmith_wire.solver_names import SolverName

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
from .console import JsonOption, UrlOption
from .naming import LabelOption, NameOption, PriorityOption, TimeoutOption, check_no_job_options, read_labels

if TYPE_CHECKING:
    from masksmith_client.submission.options import SubmitOptions


def solve(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .safetensors file, a *.index.json, or a directory.")],
    pattern: Annotated[
        list[str],
        typer.Option(
            "--pattern", "-p", metavar="[SELECTOR=]PATTERN", help="Such as '2:4' or 'transposable 8:16'; repeatable."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Masks file to write; - for standard output.")],
    url: UrlOption = None,
    local: Annotated[bool, typer.Option("--local", help="Solve in this process, without a service.")] = False,
    solver: Annotated[
        SolverName, typer.Option("--solver", "-s", help="auto selects the best one for the pattern.")
    ] = "auto",
    scores: ScoresOption = "magnitude",
    calibration: CalibrationOption = None,
    budget: Annotated[
        str | None, typer.Option(metavar="SHARE%", help="Density of the whole model, distributed among the weights.")
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
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="Without these weights; repeatable.")
    ] = None,
    layout: LayoutOption = None,
    trust_remote_code: TrustOption = False,
    axis: AxisOption = "in",
    ragged: RaggedOption = "pad",
    view: Annotated[
        Literal["channels-last", "flat"], typer.Option(help="How convolutions are viewed as matrices.")
    ] = "channels-last",
    time_limit_s: Annotated[
        float | None,
        typer.Option(
            "--time-limit", metavar="SECONDS", help="Time limit for solving; on a service from the start of the job."
        ),
    ] = None,
    timeout_s: TimeoutOption = None,
    name: NameOption = None,
    label: LabelOption = None,
    priority: PriorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the best masks for the weights of a checkpoint."""
    # Imported here, so that the help of the command does not import the client.
    from . import solve_run

    if local:
        check_no_job_options(name, label, priority, timeout_s)
    solve_run.check_files(path, output, weights_out, (calibration, previous), update=update, as_json=as_json)
    options: SubmitOptions = {
        "solver": solver,
        "scores": scores,
        "calibration": calibration,
        "budget": budget,
        "floors": floors or [],
        "previous": previous,
        "spectrum": spectrum,
        "update": update,
        "axis": axis,
        "ragged": ragged,
        "view": view,
        "layers": layers,
        "exclude": exclude,
        "layout": parse_layouts(layout),
        "trust_remote_code": trust_remote_code,
        "time_limit_s": time_limit_s,
        "name": name,
        "labels": read_labels(label),
        "priority": priority,
    }
    report = solve_run.run(path, pattern, output, weights_out, options, url=url, local=local, timeout_s=timeout_s)
    with_measures = measures or previous is not None or spectrum
    solve_run.show(report, output, weights_out, with_measures=with_measures, as_json=as_json)
