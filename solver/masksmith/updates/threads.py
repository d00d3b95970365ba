"""Limits the number of torch threads of an update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from masksmith._errors import UpdateError


@contextmanager
def torch_threads(count: int | None, name: str | None) -> Iterator[None]:
    """Set the number of torch threads within the context; None leaves it unchanged.

    Raises:
        UpdateError: If the number is less than 1; `name` is the name of the weight in the message.
    """
    if count is not None and count < 1:
        raise UpdateError(f"threads={count!r} is not at least 1", name)
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
