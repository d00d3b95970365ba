"""`masksmith warmup`: compile the solver's kernels in advance, so that no solve waits for the compilation."""

from __future__ import annotations

from typing import Annotated

import typer

from masksmith_wire.quantities import duration_text

from .console import print_json_line, print_note


def warmup(
    patterns: Annotated[
        list[str] | None,
        typer.Option(
            "--pattern",
            "-p",
            metavar="PATTERN",
            help="A pattern to compile for; repeatable; default common patterns.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON on stdout.")] = False,
) -> None:
    """Compile the solver's kernels for this machine, once; later processes load them from disk."""
    # Imported here, so that the help of the command does not import the client.
    from masksmith_client.submission.options import parse_pattern

    from .local import import_library

    canonical_patterns = tuple(str(parse_pattern(pattern)) for pattern in patterns or ())
    masksmith = import_library()
    seconds_by_pattern: dict[str, float] = {}

    def on_step(pattern: str, duration_s: float) -> None:
        seconds_by_pattern[pattern] = duration_s
        print_note(f"{pattern:<24}{duration_text(duration_s):>10}")

    total_s = (
        masksmith.warm_up(canonical_patterns, on_step) if canonical_patterns else masksmith.warm_up(on_step=on_step)
    )
    print_note(f"{'ready':<24}{duration_text(total_s):>10}")
    if as_json:
        print_json_line({"seconds": total_s, "patterns": seconds_by_pattern})
