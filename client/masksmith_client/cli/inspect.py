"""`masksmith inspect`: how each tensor of a checkpoint is made of matrices, and whether it would be masked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masksmith_wire.headers import data_bytes
from masksmith_wire.quantities import count_text, size_text

from .checkpoint_options import ExcludeOption, LayersOption, LayoutOption, TrustOption, choice_options, parse_patterns
from .console import JsonOption, print_json, print_line, print_note, show_table

if TYPE_CHECKING:
    from masksmith_client.checkpoints.checkpoint import Checkpoint
    from masksmith_client.checkpoints.choice import Choice, ChosenTensor


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A directory, an index, or a .safetensors file.")],
    pattern: Annotated[
        list[str] | None,
        typer.Option("--pattern", "-p", metavar="[SELECTOR=]PATTERN", help="As for prune; repeatable."),
    ] = None,
    layers: LayersOption = None,
    exclude: ExcludeOption = None,
    layout: LayoutOption = None,
    trust_remote_code: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the layout of a checkpoint's tensors, and which of them would be masked."""
    # Imported here, so that the help of the command does not import the client.
    from masksmith_client.checkpoints.checkpoint import Checkpoint
    from masksmith_client.checkpoints.choice import choose

    patterns = parse_patterns(pattern) if pattern else None
    options = choice_options(patterns, layers, exclude, layout, trust_remote_code)
    checkpoint = Checkpoint.open(model)
    choice = choose(checkpoint, options)
    notes = [*choice.notes, *([checkpoint.quantisation] if checkpoint.quantisation else [])]
    if as_json:
        return print_json(_document(checkpoint, choice, notes))
    show_table(
        ("tensor", "shape", "dtype", "axes", "matrices", "rule", "masked", "tied to"),
        [_row(tensor) for tensor in choice.tensors.values()],
        left_aligned=8,
    )
    for text in notes:
        print_note(f"masksmith: {text}")
    totals = _totals(choice)
    masked = totals["masked"]
    print_line(
        f"{count_text(totals['tensors'])} tensor(s) of {count_text(totals['parameters'])} parameters "
        f"({size_text(totals['bytes'])}): {count_text(masked['tensors'])} masked, "
        f"{count_text(masked['matrices'])} matrices of {count_text(masked['parameters'])} parameters"
    )
    return None


def _row(tensor: ChosenTensor) -> tuple[str, ...]:
    layout = tensor.layout
    return (
        tensor.name,
        "x".join(map(str, tensor.shape)),
        tensor.dtype,
        "-" if layout is None else str(layout),
        "-" if layout is None else count_text(tensor.matrix_count),
        "-" if layout is None else layout.rule,
        _masked_text(tensor),
        ", ".join(tensor.tied) or "-",
    )


def _masked_text(tensor: ChosenTensor) -> str:
    """Return why a tensor is not masked; for a masked one, `yes`, with its pattern and its scale if it has them."""
    if tensor.reason is not None:
        return tensor.reason
    pattern = "" if tensor.pattern is None else f": {tensor.pattern}"
    scale = "" if tensor.scale is None else f", through {tensor.scale}"
    return f"yes{pattern}{scale}"


def _totals(choice: Choice) -> dict[str, Any]:
    tensors = list(choice.tensors.values())
    return {
        "tensors": len(tensors),
        "parameters": sum(math.prod(tensor.shape) for tensor in tensors),
        "bytes": sum(data_bytes(tensor.dtype, tensor.shape) for tensor in tensors),
        "masked": {
            "tensors": len(choice.masked_tensors),
            "matrices": sum(tensor.matrix_count for tensor in choice.masked_tensors),
            "parameters": sum(math.prod(tensor.shape) for tensor in choice.masked_tensors),
        },
    }


def _document(checkpoint: Checkpoint, choice: Choice, notes: list[str]) -> dict[str, Any]:
    return {
        "model": str(checkpoint.path),
        "weights": str(checkpoint.weights),
        "model_type": (checkpoint.config or {}).get("model_type"),
        "tensors": [tensor.document() for tensor in choice.tensors.values()],
        "totals": _totals(choice),
        "notes": notes,
    }
