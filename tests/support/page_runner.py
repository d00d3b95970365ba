"""Runs the programs of pages, each in a fork of one process that has loaded what most of them need.

A line of JSON on standard input has a program's path, its folder and its environment; a line of JSON on standard output
has its exit code and what it wrote.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch  # noqa: F401  Most pages import it.

import masksmith as ms


def run(path: str, folder: str, environment: dict[str, str]) -> dict[str, Any]:
    """Run a program in a fork, with warnings as errors."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = os.fork()
        if process == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            os._exit(_run_here(path, folder, environment))
        _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        return {"code": code, "output": _text(output), "errors": _text(errors)}


def _run_here(path: str, folder: str, environment: dict[str, str]) -> int:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("error")
    sys.argv, sys.path[0] = [path], str(Path(path).parent)
    try:
        runpy.run_path(path, run_name="__main__")
    except BaseException:  # noqa: BLE001  A program may raise anything.
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read())


def main() -> None:
    """Run what standard input asks for, one program after the other."""
    ms.solve(np.ones((8, 8), np.float32), "transposable 2:4", threads=1)
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(run(**json.loads(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
