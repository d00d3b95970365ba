"""`masksmith warmup`: compile the solver's kernels in advance, so that no solve waits for the compilation."""

from __future__ import annotations

from typing import Annotated

import typer

from masksmith_client.submission.options import parse_pattern
from masksmith_wire.quantities import duration_text

from .console import print_json_line, print_note
from .local import library


def warmup(
    patterns: Annotated[
        list[str] | None, typer.Option("--pattern", "-p", help="Repeatable; default the common ones.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON on stdout.")] = False,
) -> None:
    """Compile the solver's kernels for this machine, once; later processes load them from disk."""
    chosen = tuple(str(parse_pattern(pattern)) for pattern in patterns or ())
    ms = library()
    seconds: dict[str, float] = {}

    def step(pattern: str, took_s: float) -> None:
        seconds[pattern] = took_s
        print_note(f"{pattern:<24}{duration_text(took_s):>10}")

    total = ms.warm_up(chosen, step) if chosen else ms.warm_up(on_step=step)
    print_note(f"{'ready':<24}{duration_text(total):>10}")
    if as_json:
        print_json_line({"seconds": total, "patterns": seconds})
