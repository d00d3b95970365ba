"""The library's errors.

MasksmithError
├── PatternError(ValueError)      the pattern is malformed or does not fit the shape
├── ScoresError(ValueError)       a score is NaN, infinite, negative, or the tensor is empty
├── InfeasibleError(ValueError)   forced entries leave a tile without any allowed mask
├── SolverError(ValueError)       the solver does not support the pattern, or an option is invalid or not supported
├── UpdateError(ValueError)       weight, mask and Gram matrix do not match, or determine no update
├── PruningError(ValueError)      a model cannot be pruned block by block, or not with these batches
├── MissingExtraError(ModuleNotFoundError)   a package is missing that one of the distribution's extras installs
└── VerificationError             a solver returned a mask that violates the pattern: a bug, never a usage error
"""

from __future__ import annotations

from .patterns import PatternError as PatternError
from .patterns.errors import MasksmithError as MasksmithError, MissingExtraError as MissingExtraError


class ScoresError(MasksmithError, ValueError):
    """A score is NaN, infinite or negative, or the tensor is invalid; the message names tensor, value and index.

    Attributes:
        reason: Description of the error, such as `NaN`.
        index: Index of the score in the tensor; None if the tensor as a whole is invalid.
        name: Name of the tensor, or of the mask or weight that does not match it; None if it has no name.
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


class InfeasibleError(MasksmithError, ValueError):
    """Forced entries (`must_keep`, `must_drop`) leave a tile without an allowed mask; the message names the tile.

    Attributes:
        reason: Why no mask is allowed.
        tile: The tile's row and column in the grid of tiles, if it was a single tile.
        name: Name of the tensor, if it has one.
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
    """A weight cannot be updated; the message names the tensor and the reason.

    Attributes:
        reason: Description of the error.
        name: Name of the tensor, if it has one.
        row: Row of the weight that caused the error; None if no single row did.
    """

    def __init__(self, reason: str, name: str | None = None, row: int | None = None) -> None:
        where = "" if row is None else f" (row {row})"
        super().__init__(("" if name is None else f"tensor {name!r}: ") + reason + where)
        self.reason = reason
        self.name = name
        self.row = row


class PruningError(MasksmithError, ValueError):
    """A model cannot be pruned block by block; the message names the block, the layer and the reason.

    Attributes:
        reason: Description of the error.
        name: Name of the block or weight that caused the error; None if no single one did.
    """

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(("" if name is None else f"{name}: ") + reason)
        self.reason = reason
        self.name = name


class VerificationError(MasksmithError):
    """A solver returned a mask that violates the pattern."""


def overflow_error(name: str | None) -> ScoresError:
    """Return the error for finite scores whose sum is not finite."""
    return ScoresError("the sum of the scores exceeds float64; scale them down", name=name)
