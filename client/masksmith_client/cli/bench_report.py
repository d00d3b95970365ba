"""Reports of benchmarks: print tables and conclusions, and write files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from masksmith.benchmark import Report
from masksmith_client._errors import InputError
from masksmith_client.results.atomic_write import atomic_write

from .console import print_json, print_line, print_note, show_table
from .outputs import check_output

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
SUFFIXES = (".json", ".csv", ".md", *PLOT_SUFFIXES)


def save_and_show(report: Report, outputs: Sequence[Path], *, as_json: bool) -> None:
    """Write a report to files, and print it; exit code 1 if a measurement failed.

    If a file cannot be written, the report is still printed, since the measurement may have taken hours; then the error
    is raised.
    """
    try:
        for path in outputs:
            save(report, path)
    finally:
        print_json(report.document()) if as_json else show(report)
    if report.failures:
        print_note(f"masksmith: {len(report.failures)} measurement(s) failed")
        raise typer.Exit(1)


def show(report: Report) -> None:
    """Print a report's tables and conclusions on stdout, and what was skipped or has failed on stderr."""
    for table in report.tables():
        for line in ("", table.title, *table.note.splitlines(), ""):
            print_line(line)
        show_table(table.head, table.rows, left_aligned=table.text_columns)
    print_line()
    for line in report.conclusions():
        print_line(line)
    for name, reason in sorted(report.skipped.items()):
        print_note(f"{name} cannot run here: {reason}")
    for line in report.failures:
        print_note(f"failed: {line}")


def save(report: Report, path: Path) -> None:
    """Write a report, atomically, in the format of the path's suffix."""
    writers: dict[str, Callable[[], str]] = {
        ".json": report.to_json, ".csv": report.to_csv, ".md": report.to_markdown
    }  # fmt: skip
    with atomic_write(path) as file:
        if path.suffix in writers:
            file.write(writers[path.suffix]().encode())
        else:
            from masksmith.benchmark import draw

            draw(report, file, path.suffix[1:])


def check_report_outputs(paths: Sequence[Path]) -> None:
    """Check, before any work, that reports can be written.

    Raises:
        InputError: If a file cannot be written, no format has its suffix, or it is a plot and matplotlib is missing.
    """
    for path in paths:
        check_output(path)
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: the suffix selects the format; use one of {', '.join(SUFFIXES)}")
        if path.suffix in PLOT_SUFFIXES and importlib.util.find_spec("matplotlib") is None:
            raise InputError(f"{path}: plots need matplotlib: pip install 'masksmith[plot]'")
