"""Numbers of sweeps of the passes of dual coordinate ascent, and parameters of its tie passes, chosen by measurement.

These numbers and parameters are the same for CPUs and CUDA devices; only CPUs run the float64 pass.

Tables are indexed by the size of the larger sorting network of a tile (`_shape_of` in `solvers.exact`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MAX_COLD_SIDE = 8
"""Longest side of tiles whose sweeps always start from zero duals, because initial duals would save no time."""
DOUBLE_SWEEPS = 12
"""Sweeps of the float64 pass, for tiles with scores of very different magnitude."""
FORCED_SWEEPS = 8
"""Sweeps of the separate integer pass for tiles with forced entries; the shortest-path stage starts from its duals."""

# Sweeps of each round of the integer pass, by the size of the sorting network.
_ROUNDS = {4: (4, 6), 8: (4, 10), 16: (6, 10, 16), 32: (12, 12, 24), 64: (20, 20, 40)}
_AT_MOST_ROUNDS = {4: (4, 6, 16), 8: (5, 8, 24), 16: (8, 10, 40), 32: (12, 20, 16), 64: (20, 20, 40)}
_WARM_ROUNDS = {16: (2, 6, 12, 24), 32: (4, 8, 16, 24), 64: (4, 8, 16, 40)}


class TiePass(NamedTuple):
    """Parameters of one tie pass.

    Attributes:
        sweeps: Number of sweeps.
        lowerings: Maximum number of rounds in which duals are lowered.
        zoom: Bits by which the unit of scores is finer than in the integer pass.
        noise_bits: Number of bits of the noise that breaks ties.
        non_negative: Whether duals stay non-negative, as they must if the mask may leave at-most budgets unfilled. They
            stay non-negative in any case if rows and columns have different totals.
    """

    sweeps: int
    lowerings: int
    zoom: int
    noise_bits: int
    non_negative: bool = False


_TIE_PASSES = {
    4: (TiePass(8, 8, 20, 16), TiePass(12, 8, 0, 20)),
    8: (TiePass(12, 12, 20, 16), TiePass(24, 12, 0, 20)),
    16: (TiePass(12, 16, 20, 16), TiePass(24, 16, 0, 20)),
    32: (TiePass(12, 20, 20, 16), TiePass(24, 20, 0, 20)),
    64: (TiePass(20, 30, 20, 16), TiePass(60, 30, 0, 20)),
}
_AT_MOST_TIE_PASSES = {
    4: (TiePass(8, 8, 20, 16), TiePass(8, 8, 0, 20, True)),
    8: (TiePass(12, 12, 20, 16), TiePass(8, 12, 4, 20, True)),
    16: (TiePass(12, 16, 20, 16), TiePass(8, 16, 4, 16, True)),
    32: (TiePass(12, 20, 20, 16), TiePass(8, 20, 4, 16, True)),
    64: (TiePass(20, 30, 20, 16), TiePass(20, 30, 4, 20, True)),
}


def integer_rounds(size: int, *, at_most: bool, warm: bool) -> Sequence[int]:
    """Return the sweeps of each round of the integer pass; a round continues with the tiles that are still unsolved.

    Args:
        size: Size of the sorting network.
        at_most: Whether budgets are upper limits; without effect if `warm`.
        warm: Whether sweeps start from initial duals; only for sizes above `MAX_COLD_SIDE`.
    """
    if warm:
        return _WARM_ROUNDS[size]
    return (_AT_MOST_ROUNDS if at_most else _ROUNDS)[size]


def tie_passes(size: int, *, at_most: bool) -> Sequence[TiePass]:
    """Return the tie passes, which run one after the other on the tiles that are still unsolved."""
    return (_AT_MOST_TIE_PASSES if at_most else _TIE_PASSES)[size]
