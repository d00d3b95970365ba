"""Errors of the file system that name the file that is written or read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
FileFunction = Callable[Concatenate[Path, Arguments], Result]


def names_file(function: FileFunction[Arguments, Result]) -> FileFunction[Arguments, Result]:
    """Decorate a function whose first argument is a path, so that each `OSError` in it names the file of this path.

    Without the decorator, such an error may name a partial file, only a folder, or no file.
    """

    @functools.wraps(function)
    def wrapper(path: Path, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(path, *args, **kwargs)
        except OSError as error:
            raise _named(error, path) from None

    return wrapper


def _named(error: OSError, path: Path) -> OSError:
    if error.errno is None:  # Errors of safetensors have only a message, which may name the file.
        return error if str(path) in str(error) else OSError(f"{path}: {error}")
    is_of_file = error.filename is None or str(error.filename).startswith(str(path))
    reason = error.strerror if is_of_file else f"{error.strerror} ({error.filename})"
    return OSError(error.errno, reason, str(path))
