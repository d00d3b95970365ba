"""`masksmith prune`: reads a checkpoint, and writes its pruned copy to a directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .checkpoint_options import (
    SCORE_METHODS,
    AxisOption,
    ExcludeOption,
    LayersOption,
    LayoutOption,
    RaggedOption,
    TrustOption,
    UpdateOption,
    choice_options,
    parse_patterns,
)
from .console import JsonOption, UrlOption, print_json
from .naming import LabelOption, NameOption, PriorityOption, check_no_job_options, read_labels


def prune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A directory, an index, or a .safetensors file.")],
    pattern: Annotated[
        list[str],
        typer.Option("--pattern", "-p", metavar="[SELECTOR=]PATTERN", help="Such as '2:4' or 'mlp=1:4'; repeatable."),
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
    scores: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help=f"{SCORE_METHODS}; default magnitude, or wanda with --calibration-text."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A calibration saved by masksmith.calibrate; with '--scores given', a file of scores.",
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
        int | None,
        typer.Option(min=1, help="With --calibration-text: sequences of the text that are used; default 64."),
    ] = None,
    calibration_tokens: Annotated[
        int | None, typer.Option(min=2, help="With --calibration-text: tokens of each sequence; default 256.")
    ] = None,
    order: Annotated[
        Literal["together", "sequential"],
        typer.Option(
            help="With --calibration-text: gather statistics once per block, or again for each group of layers."
        ),
    ] = "together",
    tune_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With --calibration-text: steps of Adam on a pruned block's kept weights; "
            "default 128 with --update, else none.",
        ),
    ] = None,
    tune_rate: Annotated[
        float, typer.Option(help="Learning rate of --tune-steps, relative to the root mean square of each weight.")
    ] = 0.02,
    min_tokens: Annotated[
        int, typer.Option(min=1, help="With --calibration-text: minimum number of tokens of an expert.")
    ] = 64,
    few_tokens: Annotated[
        Literal["refuse", "without data"],
        typer.Option(help="Treatment of an expert that gets fewer tokens than --min-tokens."),
    ] = "refuse",
    update: UpdateOption = None,
    previous: Annotated[
        str | None,
        typer.Option(
            metavar="JOB|FILE", help="With --by-reference: earlier masks or output, to count changed entries."
        ),
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
    # Imported here, so that the help of the command does not import the client.
    from masksmith_client._errors import InputError
    from masksmith_client.checkpoints.block_options import BlockOptions
    from masksmith_client.checkpoints.calibration_text import CalibrationText
    from masksmith_client.checkpoints.prune_method import PruneMethod
    from masksmith_wire.locations import is_in_bucket

    from . import prune_run

    text = CalibrationText.from_options(calibration_text, calibration_windows, calibration_tokens)
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
    options = replace(options, prunes_block_by_block=text is not None)
    if threads is not None and not local:
        raise InputError("--threads is for --local; a service has workers")
    if local:
        check_no_job_options(name, label, priority)
    job_options: dict[str, Any] = {"name": name, "labels": read_labels(label), "priority": priority or "batch"}
    by_reference = by_reference or is_in_bucket(model) or is_in_bucket(output)
    if by_reference and local:
        raise InputError("--by-reference and s3://... need a service: omit --local and --threads")
    if previous is not None and not by_reference:
        raise InputError("--previous needs --by-reference or s3://...: the service reads the masks itself")
    if by_reference:
        record = prune_run.prune_by_reference(url, model, output, options, method, previous, job_options)
    elif local:
        record = prune_run.prune_locally(Path(model), Path(output), options, method, threads)
    else:
        record = prune_run.prune_remotely(url, Path(model), Path(output), options, method, job_options)
    if as_json:
        print_json(record)
    else:
        prune_run.show(record, output)
