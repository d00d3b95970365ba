"""Limits the number of torch threads of an update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from masksmith._errors import UpdateError
from masksmith._numbers import is_whole_number
from masksmith._torch_threads import torch_threads


@contextmanager
def update_threads(count: int | None, name: str | None) -> Iterator[None]:
    """Set the number of torch threads within the context; None leaves it unchanged.

    Raises:
        UpdateError: If it is no whole number, or less than 1; `name` is the name of the weight in the message.
    """
    if count is None:
        yield
        return
    if not is_whole_number(count):
        raise UpdateError(f"threads={count!r} is not a whole number", name)
    if count < 1:
        raise UpdateError(f"threads={count!r} is not at least 1", name)
    with torch_threads(count):
        yield
