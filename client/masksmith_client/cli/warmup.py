"""`masksmith warmup`: compile the solver's kernels now, so that no solve waits for it."""

from __future__ import annotations

from typing import Annotated

import typer

from masksmith_client.submission.prepare import parse_pattern

from .console import emit_line, note
from .local import library


def warmup(
    patterns: Annotated[
        list[str] | None, typer.Option("--pattern", "-p", help="Repeatable; the common ones unless given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON on stdout.")] = False,
) -> None:
    """Compile the solver's kernels for this machine, once; later processes load them from disk."""
    chosen = tuple(str(parse_pattern(pattern)) for pattern in patterns or ())
    ms = library()
    seconds: dict[str, float] = {}

    def step(pattern: str, took_s: float) -> None:
        seconds[pattern] = took_s
        note(f"{pattern:<24}{took_s:6.1f} s")

    total = ms.warm_up(chosen, step) if chosen else ms.warm_up(on_step=step)
    note(f"{'ready':<24}{total:6.1f} s")
    if as_json:
        emit_line({"seconds": total, "patterns": seconds})
