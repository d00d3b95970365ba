"""What the command line prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

UrlOption = Annotated[
    str | None, typer.Option("--url", help="The service.", envvar="MASKSMITH_URL", show_envvar=False, metavar="URL")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]

# Files and pipes get wide lines instead of folded names.
PIPE_WIDTH = 200


def complain(message: str, code: int) -> int:
    """Print one line on stderr; gives `code` back."""
    print(f"masksmith: {message}", file=sys.stderr)
    return code


def note(message: str) -> None:
    """Print a line for humans on stderr."""
    print(message, file=sys.stderr, flush=True)


def emit(document: Any) -> None:
    """Print JSON on stdout."""
    print(json.dumps(document, indent=2), flush=True)


def answer(document: Any, sentence: str, *, as_json: bool) -> None:
    """Print a result on stdout: as JSON, or in a sentence."""
    if as_json:
        emit(document)
    else:
        print(sentence)


def emit_line(document: Any) -> None:
    """Print JSON on one line of stdout, for streams."""
    print(json.dumps(document), flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Print a table on stdout; columns from number `left` on are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False).print(table)


def percent(share: float | None) -> str:
    """Write a share as a percentage."""
    return "-" if share is None else f"{share:.2%}"


def gap_text(gap: float | None) -> str:
    """Write a gap: an exact 0 is a proof, so nothing else may look like it."""
    if gap is None:
        return "-"
    return "0" if gap == 0 else f"{gap:.1e}"


def seconds(time_s: float | None) -> str:
    """Write a duration."""
    return "-" if time_s is None else f"{time_s:.2f} s"
