"""The command line `masksmith`; needs the extra `cli`."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

EXTRA_MODULES = frozenset({"typer", "rich", "click"})
"""Top-level modules that the extra `cli` installs."""


def main() -> None:
    """Run the command line; the entry point of the console script."""
    _prepare_streams()
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA_MODULES:
            raise
        print(f"masksmith: the command line needs {error.name}: pip install 'masksmith[cli]'", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


def _prepare_streams() -> None:
    """Open the null device in place of closed standard streams; make output escape characters that it cannot encode.

    If standard output stayed closed, the next file that is opened would get descriptor 1, and what is printed would be
    written to it. Errors of standard output name it, so that messages do.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # This takes the lowest free descriptor, which is `number`.
            if number:
                setattr(sys, ("stdout", "stderr")[number - 1], os.fdopen(number, "w", closefd=False))
    sys.stdout = _named_output()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _StandardOutput(io.FileIO):
    """Standard output; an error of a write names it, instead of no file."""

    def write(self, data: Any) -> int:
        """Write bytes; returns how many were written."""
        try:
            return super().write(data)
        except OSError as error:
            error.filename = "standard output"
            raise


def _named_output() -> io.TextIOWrapper:
    output = io.BufferedWriter(_StandardOutput(1, "w", closefd=False))
    return io.TextIOWrapper(output, encoding=sys.stdout.encoding, line_buffering=os.isatty(1))
