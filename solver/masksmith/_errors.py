"""The library's errors; `patterns`, `layouts`, `adapters` and `benchmark` define a few more of their own.

MasksmithError
├── PatternError(ValueError)      the pattern is malformed or does not fit the shape
├── ScoresError(ValueError)       scores, or what scores or measures are computed from, are invalid
├── InfeasibleError(ValueError)   forced entries leave no allowed mask
├── SolverError(ValueError)       the solver does not support the pattern, or an option is invalid or not supported
├── UpdateError(ValueError)       weight, mask, Gram matrix or options do not match, or determine no update
│   └── WeightError               the weight itself cannot be updated, with any Gram matrix
├── PruningError(ValueError)      a model cannot be pruned block by block, or not with these batches or options
├── MissingExtraError(ModuleNotFoundError)   a package is missing that one of the distribution's extras installs
└── VerificationError             a solver's mask violates the pattern or a forced entry: a bug, never a usage error
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from .patterns import PatternError as PatternError
from .patterns.errors import MasksmithError as MasksmithError, MissingExtraError as MissingExtraError


class ScoresError(MasksmithError, ValueError):
    """A score is NaN, infinite or negative, or an input or option of scores, a calibration or a measure is invalid.

    Attributes:
        reason: Description of the error, such as `NaN`.
        index: Index of the invalid entry in its tensor; None if no single entry is invalid.
        name: Name of the tensor or layer, or of another invalid input, such as `mask`; None if not known.
        hint: What the caller can do about it; None if there is no advice.
    """

    def __init__(
        self, reason: str, index: tuple[int, ...] | None = None, name: str | None = None, hint: str | None = None
    ) -> None:
        where = "" if index is None else f" at {list(index)}"
        advice = "" if hint is None else f"; {hint}"
        super().__init__(f"{'scores' if name is None else f'tensor {name!r}'}: {reason}{where}{advice}")
        self.reason = reason
        self.index = index
        self.name = name
        self.hint = hint

    def at(self, index: Sequence[int]) -> Self:
        """Return the same error with another index, such as that in a tensor instead of that in its rows."""
        return type(self)(self.reason, tuple(index), self.name, self.hint)


class InfeasibleError(MasksmithError, ValueError):
    """Forced entries (`must_keep`, `must_drop`) leave no allowed mask; the message names the tile, if it is known.

    Attributes:
        reason: Why no mask is allowed.
        tile: Row and column, in the grid of tiles, of a tile without an allowed mask; None if it is not known.
        name: Name of the tensor; None if it has none.
    """

    def __init__(self, reason: str, tile: tuple[int, int] | None = None, name: str | None = None) -> None:
        where = "" if tile is None else f", tile {list(tile)}"
        super().__init__(f"{'scores' if name is None else f'tensor {name!r}'}{where}: {reason}")
        self.reason = reason
        self.tile = tile
        self.name = name


class SolverError(MasksmithError, ValueError):
    """The solver does not support the pattern, or an option is invalid or not supported; the message has the reason."""


class UpdateError(MasksmithError, ValueError):
    """A weight cannot be updated; the message has the reason, and the tensor's name if it has one.

    Attributes:
        reason: Description of the error.
        name: Name of the tensor; None if it has none.
        row: Row of the weight that caused the error; None if no single row did.
    """

    def __init__(self, reason: str, name: str | None = None, row: int | None = None) -> None:
        where = "" if row is None else f" (row {row})"
        super().__init__(("" if name is None else f"tensor {name!r}: ") + reason + where)
        self.reason = reason
        self.name = name
        self.row = row


class WeightError(UpdateError):
    """The weight itself cannot be updated, with any Gram matrix: its shape, dtype or values are at fault."""


class PruningError(MasksmithError, ValueError):
    """A model cannot be pruned block by block; the message has the reason, and `name` if it is not None.

    Attributes:
        reason: Description of the error.
        name: Name of the block or weight that caused the error; None if no single one did.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(("" if name is None else f"{name}: ") + reason)
        self.reason = reason
        self.name = name


class VerificationError(MasksmithError):
    """A solver returned a mask that violates the pattern or a forced entry, or no valid `PanelAnswer`: a bug of it."""


def overflow_error(name: str | None) -> ScoresError:
    """Return the error for finite scores whose sum is not finite."""
    return ScoresError("the sum of the scores exceeds float64; scale them down", name=name)
