"""`masksmith prune`: a model's directory in, a model's directory out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masksmith_client._errors import InputError
from masksmith_client._progress import Bar
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.choice import choose
from masksmith_client.checkpoints.output_folder import check_output_folder
from masksmith_client.checkpoints.prune import prune as prune_checkpoint

from .checkpoint_options import ExcludeOption, LayersOption, LayoutOption, TrustOption, choice_options, parse_patterns
from .console import JsonOption, gap_text, percent, print_json, print_note, seconds, show_table
from .local_prune import local_solver, parse_scores


def prune(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A directory, an index, or a .safetensors file.")],
    pattern: Annotated[
        list[str],
        typer.Option("--pattern", "-p", metavar="[GLOB=]PATTERN", help="Such as '2:4' or 'mlp=1:4'; repeatable."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write, new or empty.")],
    local: Annotated[bool, typer.Option("--local", help="Solve in this process, without a service.")] = False,
    scores: Annotated[str, typer.Option(metavar="METHOD", help="magnitude, 'magnitude power=2', 'ria power=0'.")] = (
        "magnitude"
    ),
    layers: LayersOption = None,
    exclude: ExcludeOption = None,
    layout: LayoutOption = None,
    trust_remote_code: TrustOption = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Tiles solved side by side; all cores unless given.")] = (
        None
    ),
    as_json: JsonOption = False,
) -> None:
    """Write a pruned copy of a checkpoint, masks and certificates beside it; from_pretrained loads it."""
    if not local:
        raise InputError("prune solves in this process: say --local")
    method = parse_scores(scores)
    options = choice_options(parse_patterns(pattern), layers, exclude, layout, trust_remote_code)
    checkpoint = Checkpoint.open(model)
    checkpoint.check_is_not_quantised()
    check_output_folder(output, checkpoint)
    choice = choose(checkpoint, options)
    total = sum(header.file_bytes for header in checkpoint.headers.values())
    with Bar("pruning", total, show=None, in_bytes=True) as bar:
        solve = local_solver(method, threads)
        record = prune_checkpoint(checkpoint, choice, output, solve, scores=str(method), on_bytes=bar.advance)
    if as_json:
        print_json(record)
    else:
        _show(record, output)


def _show(record: dict[str, Any], output: Path) -> None:
    masked = [tensor for tensor in record["tensors"] if tensor["masked"]]
    show_table(
        ("tensor", "axes", "pattern", "status", "shape", "kept", "retained", "gap", "time"),
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
            )
            for tensor in masked
        ],
        left=4,
    )
    for text in record["notes"]:
        print_note(f"masksmith: {text}")
    if record["not_copied"]:
        print(f"not copied, as their weights are not pruned: {', '.join(record['not_copied'])}")
    totals = record["totals"]
    print(
        f"{totals['masked']} of {totals['tensors']} tensor(s) masked: {percent(totals['density'])} of entries kept, "
        f"gap {gap_text(totals['gap'])}; {percent(totals['zeros'])} of all parameters are zero -> {output}"
    )
