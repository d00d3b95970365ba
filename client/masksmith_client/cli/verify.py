"""`masksmith verify`: check masks or weights against patterns, or weights against masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .checkpoint_options import ExcludeOption, LayersOption, LayoutOption, TrustOption
from .console import JsonOption


def verify(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="MASKS|MODEL",
            help="A masks file or a safetensors file of bool tensors; or weights: a .safetensors file, an index, or a "
            "model's directory.",
        ),
    ],
    pattern: Annotated[
        list[str] | None,
        typer.Option(
            "--pattern",
            "-p",
            metavar="[SELECTOR=]PATTERN",
            help="A pattern such as '2:4', or 'mlp=1:4' for some tensors only; repeatable. Weights may have at most as "
            "many non-zeros as the pattern keeps, in each group if it has groups. Without it, a masks file is "
            "checked against its own pattern, and a directory that 'masksmith prune' wrote against its masks.",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="FILE", help="Check that all non-zeros of the weights are inside these masks."),
    ] = None,
    axis: Annotated[Literal["in", "out"] | None, typer.Option(help="Axis of the pattern's groups.")] = None,
    ragged: Annotated[
        Literal["pad", "dense", "error"] | None, typer.Option(help="Edges that no whole tile covers.")
    ] = None,
    layers: LayersOption = None,
    exclude: ExcludeOption = None,
    layout: LayoutOption = None,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check masks or weights against a pattern, or weights against masks; exit code 1 after a violation.

    NaN is a non-zero. Quantised weights, int8 or 8-bit floats, are supported if their zero point is 0: then a stored 0
    is a zero.
    """
    # Imported here, so that the help of the command does not import the client.
    from .verify_run import verify_path
    from .verify_weights import WeightOptions

    options = WeightOptions(pattern, masks, axis, ragged, layers, exclude, layout, trust_remote_code)
    if not verify_path(path, options, as_json=as_json):
        raise typer.Exit(1)
