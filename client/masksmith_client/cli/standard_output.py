"""`-o -`: a file on standard output, and the report on standard error."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from masksmith_client._errors import InputError


def is_standard_output(path: Path | None) -> bool:
    """Whether a path means standard output."""
    return path is not None and str(path) == "-"


def check_standard_output(*, as_json: bool) -> None:
    """Check that a file can be written to standard output.

    Args:
        as_json: Whether the report is JSON, which is printed on standard output.

    Raises:
        InputError: If the report is JSON, or standard output is a terminal.
    """
    if as_json:
        raise InputError("--json and -o - both write to standard output: name a file")
    if sys.stdout.isatty():
        raise InputError("standard output is a terminal: send it to a file or a pipe, or name a file")


@contextmanager
def written_to(path: Path) -> Iterator[Path]:
    """Yield the path of the file to write.

    For `-` this file is temporary: if it was written and no error is raised, it is copied to standard output.
    """
    if not is_standard_output(path):
        yield path
        return
    with TemporaryDirectory(prefix="masksmith-") as folder:
        file = Path(folder) / "output.safetensors"
        yield file
        if file.exists():
            with file.open("rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer, 2**20)
            sys.stdout.buffer.flush()


def redirect_report(path: Path | None) -> AbstractContextManager[object]:
    """Return a context in which standard output is redirected to standard error, if `path` is standard output."""
    return redirect_stdout(sys.stderr) if is_standard_output(path) else nullcontext()
