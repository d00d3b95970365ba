"""`masksmith apply`: write a model's weights with zeros in the pruned entries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masksmith_wire.quantities import count_text

from .console import JsonOption, percent, print_json, print_line, print_note, show_table

if TYPE_CHECKING:
    from masksmith_client.results.apply import AppliedTensor


def apply(
    path: Annotated[Path, typer.Argument(metavar="MASKS", help="A masks file, or a safetensors file of bool tensors.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .safetensors file, an index, or a directory.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR",
            help="A .safetensors file, a model's directory, or - for standard output.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Write a model's weights with zeros in the pruned entries; dtypes and all other tensors stay."""
    # Imported here, so that the help of the command does not import the client.
    from masksmith_client._progress import Bar
    from masksmith_client.checkpoints.checkpoint import Checkpoint
    from masksmith_client.results.apply import apply_masks, model_bytes
    from masksmith_client.results.masks import Masks

    from .outputs import check_not_an_input, check_weights_output
    from .standard_output import redirect_report, written_to

    check_weights_output(output, model, as_json=as_json)
    check_not_an_input(output, (path,))  # `apply_masks` checks that the output is no file of the model.
    masks = Masks.open(path)
    notes = Checkpoint.open(model).notes
    with written_to(output) as file, Bar("applying", model_bytes(model, output), show="lines", in_bytes=True) as bar:
        tensors = apply_masks(masks, model, file, bar.advance)
    with redirect_report(output):
        _show(tensors, output, notes, as_json=as_json)


def _show(tensors: list[AppliedTensor], output: Path, notes: list[str], *, as_json: bool) -> None:
    masked = [tensor for tensor in tensors if tensor.kept is not None]
    if as_json:
        documents = [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "kept": t.kept, "density": t.density}
            for t in masked
        ]
        copied = [t.name for t in tensors if t.kept is None]
        return print_json({"output": str(output), "tensors": documents, "copied": copied, "notes": notes})
    rows = [(t.name, t.dtype, "x".join(map(str, t.shape)), percent(t.density)) for t in masked]
    show_table(("tensor", "dtype", "shape", "kept"), rows, left_aligned=2)
    print_line(
        f"{count_text(len(masked))} of {count_text(len(tensors))} tensor(s) masked, the others copied -> {output}"
    )
    for text in notes:
        print_note(f"masksmith: {text}")
    return None
