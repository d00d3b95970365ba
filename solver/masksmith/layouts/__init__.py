"""Layouts: which tensors are masked, how they are named, and why one is left out. Standard library only."""

from .candidates import Candidate as Candidate
from .dtypes import FLOAT_DTYPES as FLOAT_DTYPES, ITEM_BYTES as ITEM_BYTES
from .selection import (
    BY_CHOICE as BY_CHOICE,
    Selection as Selection,
    SelectionError as SelectionError,
    select as select,
)
from .whole_tensors import WHOLE_BYTES as WHOLE_BYTES, binding as binding, oversize_reason as oversize_reason

__all__ = [
    "BY_CHOICE",
    "FLOAT_DTYPES",
    "ITEM_BYTES",
    "WHOLE_BYTES",
    "Candidate",
    "Selection",
    "SelectionError",
    "binding",
    "oversize_reason",
    "select",
]
