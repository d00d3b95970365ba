"""Which values of options are numbers."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard


def is_whole_number(value: object) -> bool:
    """Return whether a value is an integer of Python or numpy; False for True and False."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a real number of Python or numpy; False for NaN, True and False."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
