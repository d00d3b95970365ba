"""`masksmith prune`: a model's directory in, a model's directory out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from masksmith_client._errors import InputError
from masksmith_client.checkpoints.block_options import BlockOptions
from masksmith_client.checkpoints.calibration_text import CalibrationText
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import Choice, ChoiceOptions
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.pruning import prune_model
from masksmith_client.checkpoints.solved import Solve
from masksmith_client.submission.statistics import AuxiliaryTensors
from masksmith_wire.locations import is_in_bucket
from masksmith_wire.measures import UpdateReport
from masksmith_wire.output_names import BLOCK_PAGE_NAME
from masksmith_wire.quantities import count_text

from .checkpoint_options import (
    AxisOption,
    ExcludeOption,
    LayersOption,
    LayoutOption,
    RaggedOption,
    ScoresOption,
    TrustOption,
    UpdateOption,
    choice_options,
    parse_patterns,
)
from .console import JsonOption, UrlOption, gap_text, percent, print_json, print_line, print_note, seconds, show_table
from .naming import LabelOption, NameOption, PriorityOption, read_labels
from .report import UPDATE_COLUMNS, update_cells

STOPPED_AT_SERVICE = "stopped, and the service's jobs are canceled"


def prune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A directory, an index, or a .safetensors file.")],
    pattern: Annotated[
        list[str],
        typer.Option("--pattern", "-p", metavar="[GLOB=]PATTERN", help="Such as '2:4' or 'mlp=1:4'; repeatable."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Directory to write, new or empty.")],
    url: UrlOption = None,
    by_reference: Annotated[
        bool,
        typer.Option(
            "--by-reference",
            help="The service reads MODEL and writes OUTPUT itself, in its roots; always so with s3://...",
        ),
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Solve in this process, without a service.")] = False,
    scores: ScoresOption | None = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A calibration saved by masksmith.calibrate; with --scores given: the scores."
        ),
    ] = None,
    calibration_text: Annotated[
        Path | None,
        typer.Option(
            "--calibration-text",
            metavar="FILE",
            help="With --local: calibrate a language model with this text (or .jsonl with 'text'), block by block.",
        ),
    ] = None,
    calibration_windows: Annotated[
        int, typer.Option(min=1, help="Sequences of the calibration text that are used.")
    ] = 64,
    calibration_tokens: Annotated[int, typer.Option(min=2, help="Tokens of each sequence.")] = 256,
    order: Annotated[
        Literal["together", "sequential"],
        typer.Option(help="With --calibration-text: statistics of a block at once, or after each group of its layers."),
    ] = "together",
    tune_steps: Annotated[
        int, typer.Option(min=0, help="With --calibration-text: steps of Adam on a pruned block's kept weights.")
    ] = 0,
    tune_rate: Annotated[
        float, typer.Option(help="Learning rate of --tune-steps, relative to the root mean square of each weight.")
    ] = 0.02,
    min_tokens: Annotated[int, typer.Option(min=1, help="With --calibration-text: tokens that an expert needs.")] = 64,
    few_tokens: Annotated[
        Literal["refuse", "without data"], typer.Option(help="Treatment of an expert with fewer than --min-tokens.")
    ] = "refuse",
    update: UpdateOption = None,
    previous: Annotated[
        str | None,
        typer.Option(metavar="JOB|FILE", help="With --by-reference: earlier masks or output; counts changed entries."),
    ] = None,
    layers: LayersOption = None,
    exclude: ExcludeOption = None,
    layout: LayoutOption = None,
    axis: AxisOption = "in",
    ragged: RaggedOption = "pad",
    trust_remote_code: TrustOption = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="With --local: number of threads; default all cores.")
    ] = None,
    name: NameOption = None,
    label: LabelOption = None,
    priority: PriorityOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a pruned copy of a checkpoint, with masks and certificates; from_pretrained loads the copy."""
    text = None
    if calibration_text is not None:
        text = CalibrationText(calibration_text, calibration_windows, calibration_tokens)
    if text is not None and not local:
        raise InputError("--calibration-text needs --local: the model runs in this process")
    method = PruneMethod.parse(
        scores or ("magnitude" if text is None else "wanda"),
        update,
        calibration,
        text,
        BlockOptions(order, tune_steps, tune_rate, min_tokens, few_tokens),
    )
    options = choice_options(parse_patterns(pattern, axis, ragged), layers, exclude, layout, trust_remote_code)
    if threads is not None and not local:
        raise InputError("--threads is for --local; a service has workers")
    job_options: dict[str, Any] = {"name": name, "labels": read_labels(label), "priority": priority or "batch"}
    by_reference = by_reference or is_in_bucket(model) or is_in_bucket(output)
    if by_reference and (local or threads is not None):
        raise InputError("--by-reference and s3://... need a service: omit --local and --threads")
    if previous is not None and not by_reference:
        raise InputError("--previous needs --by-reference or s3://...: the service reads the masks itself")
    if by_reference:
        record = _prune_by_reference(url, model, output, options, method, previous, job_options)
    elif local:
        solver = _local_solver(method, options, Path(output), threads)
        with _resume_hint("stopped"):
            record = prune_model(Path(model), Path(output), options, method, solver, progress="lines")
    else:
        record = _prune_remotely(url, Path(model), Path(output), options, method, job_options)
    if as_json:
        print_json(record)
    else:
        _show(record, output)


def _local_solver(
    method: PruneMethod, options: ChoiceOptions, output: Path, threads: int | None
) -> Callable[[Checkpoint, Choice, AuxiliaryTensors], Solve]:
    from .block_prune import block_solver
    from .local_prune import local_solver

    if method.text is None:
        solve = local_solver(method, threads)
        return lambda *_: solve
    trust = options.trust_remote_code
    return lambda checkpoint, choice, _: block_solver(
        checkpoint, choice, method, output, threads=threads, trust_remote_code=trust
    )


def _prune_by_reference(
    url: str | None,
    model: str,
    output: str,
    options: ChoiceOptions,
    method: PruneMethod,
    previous: str | None,
    job_options: Mapping[str, Any],
) -> dict[str, Any]:
    # Imported here, and in `_prune_remotely`, since --local needs no client.
    from masksmith_client._client import Client
    from masksmith_client.checkpoints.by_reference import ReferencePruner

    from .service import note_waiting

    with Client(url) as client, _resume_hint(STOPPED_AT_SERVICE):
        pruner = ReferencePruner(client.jobs, method, "lines", on_submit=note_waiting, previous=previous, **job_options)
        return pruner.prune(model, output, options)


def _prune_remotely(
    url: str | None,
    model: Path,
    output: Path,
    options: ChoiceOptions,
    method: PruneMethod,
    job_options: Mapping[str, Any],
) -> dict[str, Any]:
    from masksmith_client._client import Client
    from masksmith_client.checkpoints.remote import RemoteSolver

    from .service import note_waiting

    with Client(url) as client, _resume_hint(STOPPED_AT_SERVICE):

        def solver(checkpoint: Checkpoint, choice: Choice, statistics: AuxiliaryTensors) -> Solve:
            reason = client.info().trouble
            if reason is not None:
                print_note(f"masksmith: {client.url} is not ready, jobs wait: {reason}")
            return RemoteSolver.checked(
                client.jobs, method, checkpoint, choice, statistics, on_submit=note_waiting, **job_options
            )

        return prune_model(model, output, options, method, solver, progress="lines")


@contextmanager
def _resume_hint(what: str) -> Iterator[None]:
    """After Ctrl-C, print what was stopped and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        print_note(f"\nmasksmith: {what}; the same command continues from here")
        raise


def _show(record: dict[str, Any], output: str) -> None:
    masked = [tensor for tensor in record["tensors"] if tensor["masked"]]
    update_columns = UPDATE_COLUMNS if record["update"] is not None else ()
    has_changes = any("change" in tensor for tensor in masked)
    show_table(
        (
            "tensor",
            "axes",
            "pattern",
            "status",
            "shape",
            "kept",
            "retained",
            "gap",
            "time",
            *(["changed"] * has_changes),
            *update_columns,
        ),
        [
            (
                tensor["name"],
                tensor["axes"],
                tensor["pattern"],
                tensor["status"],
                "x".join(map(str, tensor["shape"])),
                percent(tensor["density"]),
                percent(tensor["retained"]),
                gap_text(tensor["gap"]),
                seconds(tensor["solve_s"]),
                *([percent(tensor["change"]["flip_rate"]) if "change" in tensor else ""] * has_changes),
                *(update_cells(UpdateReport.model_validate(tensor["update"])) if update_columns else ()),
            )
            for tensor in masked
        ],
        left_aligned=4,
    )
    _show_summary(record, output)


def _show_summary(record: dict[str, Any], output: str) -> None:
    for text in record["notes"]:
        print_note(f"masksmith: {text}")
    if record["not_copied"]:
        print_line(f"not copied, as their weights are not pruned: {', '.join(record['not_copied'])}")
    if (blocks := Path(output) / BLOCK_PAGE_NAME).exists():
        print_line(f"errors and times of each block: {blocks}")
    totals = record["totals"]
    print_line(
        f"{count_text(totals['masked'])} of {count_text(totals['tensors'])} tensor(s) masked: "
        f"{percent(totals['density'])} of entries kept, gap {gap_text(totals['gap'])}; "
        f"{percent(totals['zeros'])} of all parameters are zero -> {output}"
    )
