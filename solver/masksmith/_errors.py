"""The library's errors.

MasksmithError
├── PatternError(ValueError)      the pattern is malformed or does not fit the shape
├── ScoresError(ValueError)       a score is NaN, infinite, negative, or the tensor is empty
├── InfeasibleError(ValueError)   forced entries leave a tile without any allowed mask
├── SolverError(ValueError)       the solver cannot do what is asked of it
├── UpdateError(ValueError)       weight, mask and Gram matrix do not fit, or determine no update
├── MissingExtraError(ModuleNotFoundError)   a package is missing that one of the distribution's extras installs
└── VerificationError             a solver returned a mask outside the pattern: a bug, never a user's fault
"""

from __future__ import annotations

from .patterns import PatternError as PatternError
from .patterns.errors import MasksmithError as MasksmithError, MissingExtraError as MissingExtraError


class ScoresError(MasksmithError, ValueError):
    """The scores hold a value that no importance can have; the message names tensor, value and index.

    Attributes:
        reason: What is wrong, such as `NaN`.
        index: Where, in the tensor's own shape; None when the tensor as a whole is at fault.
    """

    def __init__(self, reason: str, index: tuple[int, ...] | None = None, name: str | None = None) -> None:
        where = "" if index is None else f" at {list(index)}"
        super().__init__(f"{'scores' if name is None else f'tensor {name!r}'}: {reason}{where}")
        self.reason = reason
        self.index = index
        self.name = name


class InfeasibleError(MasksmithError, ValueError):
    """Forced entries (`must_keep`, `must_drop`) leave a tile without an allowed mask; the message names the tile.

    Attributes:
        reason: Why no mask is allowed.
        tile: The tile's row and column in the grid of tiles.
    """

    def __init__(self, reason: str, tile: tuple[int, int] | None = None, name: str | None = None) -> None:
        where = "" if tile is None else f", tile {list(tile)}"
        super().__init__(f"{'scores' if name is None else f'tensor {name!r}'}{where}: {reason}")
        self.reason = reason
        self.tile = tile
        self.name = name


class SolverError(MasksmithError, ValueError):
    """The solver does not support this pattern or option; the message says which one does."""


class UpdateError(MasksmithError, ValueError):
    """A weight cannot be updated; the message names the tensor and what is at fault.

    Attributes:
        reason: What is wrong.
        row: The weight's row that it is wrong for, where it is one.
    """

    def __init__(self, reason: str, name: str | None = None, row: int | None = None) -> None:
        where = "" if row is None else f" (row {row})"
        super().__init__(("" if name is None else f"tensor {name!r}: ") + reason + where)
        self.reason = reason
        self.name = name
        self.row = row


class VerificationError(MasksmithError):
    """A mask outside its pattern; raised when a solver breaks its contract."""


def sums_overflow(name: str | None) -> ScoresError:
    """Make the error for scores that are finite, but not their sum."""
    return ScoresError("the sum of the scores exceeds float64; scale them down", name=name)
