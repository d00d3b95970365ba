"""`masksmith verify`: whether masks obey a pattern, checked by code that shares nothing with the solvers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from masksmith.layouts import Layout
from masksmith.patterns import Pattern, PatternError
from masksmith_client._errors import InputError
from masksmith_client.results.masks import Masks
from masksmith_client.submission.prepare import parse_pattern
from masksmith_client.submission.weights import BoolMask
from masksmith_wire.masks import MaskInfo

from .console import JsonOption, emit, percent, show_table
from .local import library


def verify(
    path: Annotated[Path, typer.Argument(metavar="MASKS", help="A masks file, or a safetensors file of bool tensors.")],
    pattern: Annotated[str | None, typer.Option("--pattern", "-p", help="Unless given: what the file claims.")] = None,
    axis: Annotated[Literal["in", "out"] | None, typer.Option()] = None,
    ragged: Annotated[Literal["pad", "dense", "error"] | None, typer.Option()] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every mask of a file against a pattern; exit code 1 if any breaks it."""
    results: list[dict[str, Any]] = []
    masks = Masks.open(path)
    if pattern is not None:
        parse_pattern(pattern)
    for name in masks:
        expected = _pattern(name, masks.infos.get(name), pattern, axis, ragged)
        mask = masks[name]
        violation = _violation(mask, expected, masks.infos.get(name))
        results.append(
            {
                "name": name,
                "ok": violation is None,
                "pattern": str(expected),
                "shape": list(mask.shape),
                "density": float(mask.mean()) if mask.size else 0.0,
                "message": violation,
            }
        )
    _show(results, as_json=as_json)
    if not all(result["ok"] for result in results):
        raise typer.Exit(1)


def _violation(mask: BoolMask, pattern: Pattern, info: MaskInfo | None) -> str | None:
    layout = None if info is None or info.layout is None else Layout.parse(info.layout, out_parts=info.out_parts or ())
    try:
        verdict = library().verify(mask, pattern, layout=layout)
    except PatternError as error:
        return str(error)
    return None if verdict.ok else str(verdict.message)


def _pattern(name: str, info: MaskInfo | None, pattern: str | None, axis: Any, ragged: Any) -> Pattern:
    text = pattern or (info.pattern if info else None)
    if text is None:
        raise InputError(f"{name!r} does not say which pattern it follows; say --pattern")
    chosen_axis: Any = axis or (info.axis if info else "in")
    chosen_ragged: Any = ragged or (info.ragged if info else "pad")
    return parse_pattern(text, chosen_axis, chosen_ragged)


def _show(results: list[dict[str, Any]], *, as_json: bool) -> None:
    ok = all(result["ok"] for result in results)
    if as_json:
        return emit({"ok": ok, "masks": results})
    show_table(
        ("tensor", "verdict", "shape", "kept"),
        [
            (
                result["name"],
                "ok" if result["ok"] else f"BROKEN: {result['message']}",
                "x".join(map(str, result["shape"])),
                percent(result["density"]),
            )
            for result in results
        ],
        left=2,
    )
    broken = sum(not result["ok"] for result in results)
    print(f"{len(results)} mask(s): all obey" if ok else f"{broken} of {len(results)} mask(s) break the pattern")
    return None
