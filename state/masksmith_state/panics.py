"""Panics of native libraries, which pyo3 raises as a `BaseException` that no `except Exception` catches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def is_panic(error: BaseException) -> bool:
    """Whether an exception is a panic of a library written in Rust; its class cannot be imported."""
    return type(error).__name__ == "PanicException" and not isinstance(error, Exception)


@contextmanager
def panics_as(exception_type: type[Exception]) -> Iterator[None]:
    """Convert panics to an exception of this type."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise exception_type(f"a native library panicked: {error}") from None
