"""Output of the command line, results on stdout and all else on stderr; and options that many commands have."""

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

PIPE_WIDTH = 200
"""Width of tables in files and pipes, where there is no terminal whose width could be used."""
COLUMN_SPACING = 2
MIN_NAME_WIDTH = 12
"""A shortened name has at least this many characters; JSON has names in full."""


def print_error(message: str, code: int) -> int:
    """Print an error message on stderr, and return `code`."""
    first, *others = message.splitlines() or [""]
    print(f"masksmith: {_safe(first)}", file=sys.stderr)
    for line in others:
        # Indented, so that no line of a message looks like another message.
        print(f"  {_safe(line)}", file=sys.stderr)
    return code


def print_note(message: str) -> None:
    """Print a line on stderr."""
    print(_safe(message), file=sys.stderr, flush=True)


def end_line() -> None:
    """End the line that a progress bar, or the `^C` of Ctrl-C, has begun, if stderr is a terminal."""
    if sys.stderr.isatty():
        print(file=sys.stderr)


def print_line(text: str = "") -> None:
    """Print a line on stdout."""
    print(_safe(text))


def _safe(text: str) -> str:
    """Replace control characters and credentials, which names of tensors and messages of servers may contain."""
    from masksmith_wire.text import printable, without_credentials

    return printable(without_credentials(text))


def print_json(document: Any) -> None:
    """Print JSON on stdout."""
    print(json.dumps(document, indent=2), flush=True)


def print_result(document: Any, sentence: str, *, as_json: bool) -> None:
    """Print a result on stdout, as JSON or as a sentence."""
    if as_json:
        print_json(document)
    else:
        print_line(sentence)


def print_json_line(document: Any) -> None:
    """Print JSON on one line of stdout, for streams."""
    print(json.dumps(document), flush=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, left_aligned: int = 1) -> None:
    """Print a table on stdout; the first `left_aligned` columns are left-aligned, the others right-aligned.

    Control characters and credentials in the cells are replaced; long names in the first column are shortened.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False)
    cells = _shortened([[*map(_safe, row)] for row in rows], columns, console.width)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left_aligned else "right", overflow="fold")
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _shortened(rows: list[list[str]], columns: Sequence[str], width: int) -> list[list[str]]:
    """Replace the middle of the names in the first column by `...` if the table is wider than `width`."""
    widths = [max(map(len, [column, *(row[number] for row in rows)])) for number, column in enumerate(columns)]
    other_columns_width = sum(widths[1:]) + COLUMN_SPACING * (len(columns) - 1)
    name_width = max(MIN_NAME_WIDTH, width - other_columns_width)
    return [[elide(row[0], name_width), *row[1:]] for row in rows]


def elide(text: str, width: int) -> str:
    """Replace the middle of a text that is longer than `width` by `...`."""
    if len(text) <= width:
        return text
    tail = (width - 3) * 2 // 3
    return f"{text[: width - 3 - tail]}...{text[-tail:]}"


def percent(share: float | None) -> str:
    """Format a share, in [0, 1], as a percentage; `-` if it is None."""
    return "-" if share is None else f"{share:.2%}"


def gap_text(gap: float | None) -> str:
    """Format a gap; only an exact 0, which is a proof, is printed as 0. `-` if it is None."""
    if gap is None:
        return "-"
    return "0" if gap == 0 else f"{gap:.1e}"


def time_text(time_s: float | None) -> str:
    """Format a duration; `-` if it is None."""
    from masksmith_wire.quantities import duration_text

    return "-" if time_s is None else duration_text(time_s)
