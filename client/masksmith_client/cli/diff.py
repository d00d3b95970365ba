"""`masksmith diff`: count the entries that differ between two masks files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masksmith_wire.quantities import count_text

from .console import JsonOption, percent, print_json, print_line, print_note, show_table

if TYPE_CHECKING:
    from masksmith_client.results.changes import MaskChange


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="The first masks file.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The second masks file.")],
    as_json: JsonOption = False,
) -> None:
    """Count the entries that differ between two masks files: SAD (sum of absolute differences) and flip rate."""
    # Imported here, so that the help of the command does not import the client.
    from masksmith_client.results.changes import compare
    from masksmith_client.results.masks import Masks

    masks_before, masks_after = Masks.open(before), Masks.open(after)
    changes = compare(masks_before, masks_after)
    only_before = [name for name in masks_before if name not in masks_after]
    only_after = [name for name in masks_after if name not in masks_before]
    sad, entries = sum(change.sad for change in changes), sum(change.entries for change in changes)
    rate = sad / entries if entries else 0.0
    if as_json:
        total = {"sad": sad, "entries": entries, "flip_rate": rate}
        tensors = [_document(change) for change in changes]
        return print_json({"total": total, "tensors": tensors, "only_in_a": only_before, "only_in_b": only_after})
    _show(changes)
    for names, path in ((only_before, before), (only_after, after)):
        if names:
            print_note(f"only in {path}: {', '.join(names)}")
    differing = f"{count_text(sad)} of {count_text(entries)} entries differ"
    print_line(f"{count_text(len(changes))} mask(s): {differing}, flip rate {rate:.2%}")
    return None


def _document(change: MaskChange) -> dict[str, object]:
    return {
        "name": change.name,
        "shape": list(change.shape),
        "sad": change.sad,
        "added": change.added,
        "dropped": change.dropped,
        "flip_rate": change.flip_rate,
        "kept_a": change.kept_before,
        "kept_b": change.kept_after,
    }


def _show(changes: list[MaskChange]) -> None:
    rows = [
        (
            change.name,
            "x".join(map(str, change.shape)),
            percent(change.kept_before / change.entries if change.entries else None),
            percent(change.kept_after / change.entries if change.entries else None),
            count_text(change.sad),
            percent(change.flip_rate),
        )
        for change in changes
    ]
    show_table(("tensor", "shape", "kept in A", "kept in B", "SAD", "flip rate"), rows)
