"""Indices of invalid entries: those in a range of a tensor's rows become those in the tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import masksmith as ms
from masksmith.scores import StatisticError


@contextmanager
def error_indices_from(first: int, *, of_statistics: bool = False) -> Iterator[None]:
    """Add `first` to the row of a `ScoresError` raised in the `with` block.

    Args:
        first: First row of the range that is scored or solved, as a row of the tensor.
        of_statistics: Whether statistics are read from this row on, too; otherwise the index of a `StatisticError`
            stays as it is.
    """
    try:
        yield
    except ms.ScoresError as error:
        if error.index is None or (isinstance(error, StatisticError) and not of_statistics):
            raise
        raise error.at((error.index[0] + first, *error.index[1:])) from None
