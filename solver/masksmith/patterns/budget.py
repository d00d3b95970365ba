"""Budgets: one density for a whole model, and minimum densities (floors) for some of its layers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from .block import Block
from .capacity import capacity
from .density import check_density, from_percent, to_percent
from .errors import PatternError
from .geometry import Grid
from .matching import matches
from .nm import NM
from .pattern import Pattern
from .unstructured import Unstructured

PERCENT = re.compile(r"\s*(\d{1,3}(?:\.\d{1,40})?)\s*%\s*")
_SHOWN_LAYERS = 4


@dataclass(frozen=True)
class Budget:
    """A density for a whole model, distributed over its layers so that the most score is kept.

    Attributes:
        density: Share kept of all layers together, in [1e-9, 1], or as text: `"50%"`.
        floors: Minimum shares by glob, for the layers whose name matches the glob; if several globs match a name, the
            largest share applies. Without a floor, too, every layer keeps something: at least one entry if the pattern
            is unstructured, one block under a block pattern, and under n:m what the smallest possible n keeps.

    Raises:
        PatternError: If a share is not in [1e-9, 1].
    """

    density: float
    floors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", _share_of(self.density))
        object.__setattr__(self, "floors", {glob: _share_of(floor) for glob, floor in self.floors.items()})

    def __hash__(self) -> int:
        return hash((self.density, frozenset(self.floors.items())))

    @classmethod
    def parse(cls, density: str, floors: Iterable[str] = ()) -> Budget:
        """Read `"50%"` and floors such as `"*.query*=25%"`.

        Raises:
            PatternError: If a text is malformed, a share is not in [1e-9, 1], or a glob has two floors.
        """
        parsed: dict[str, float] = {}
        for text in floors:
            glob, sign, share = text.rpartition("=")
            if not (glob and sign):
                raise PatternError(f"floor {text[:80]!r}: expected GLOB=SHARE%, such as '*.query*=25%'")
            if glob in parsed:
                raise PatternError(f"floor {text[:80]!r}: {glob!r} has two floors")
            parsed[glob] = _share_of(share)
        return cls(_share_of(density), parsed)

    def texts(self) -> dict[str, object]:
        """Return the options `budget` and `floors` of a job: the texts that `parse` reads."""
        floors = [f"{glob}={to_percent(floor)}" for glob, floor in self.floors.items()]
        return {"budget": to_percent(self.density), "floors": floors}

    def floor_of(self, name: str) -> float:
        """Return the minimum share that a layer keeps, 0 if it has no floor."""
        return max((floor for glob, floor in self.floors.items() if matches(name, glob)), default=0.0)

    def check(self, shapes: Mapping[str, tuple[int, ...]], pattern: Pattern) -> None:
        """Check that layers of these shapes can satisfy the budget, before any score is read.

        Raises:
            PatternError: If budgets do not apply to the pattern; if the density of a pattern other than n:m is not that
                of the budget; if the pattern does not fit a shape; if a floor matches no layer; if the floors need more
                than the density allows; or if the density rounds to nothing.
        """
        check_distributable(pattern)
        if not isinstance(pattern, NM) and getattr(pattern, "density", None) != self.density:
            raise PatternError(f"{pattern} contradicts the budget {self}: give both the same share")
        for glob in self.floors:
            if not any(matches(name, glob) for name in shapes):
                more = ", ..." if len(shapes) > _SHOWN_LAYERS else ""
                shown = ", ".join(list(shapes)[:_SHOWN_LAYERS])
                raise PatternError(f"floor {glob!r} matches no layer; there are {shown}{more}")
        minimum, total = 0, 0
        for name, shape in shapes.items():
            units = count_units(pattern, shape)
            minimum += floor_units(pattern, shape, self.floor_of(name))
            total += units
        kept = self.kept_units(total, pattern)
        if minimum > kept:
            raise PatternError(
                f"budget {self}: {kept} of {total} {unit_of(pattern)} may be kept, but the {len(shapes)} layer(s) "
                f"need {minimum}, by their floors or because each keeps at least one; raise the density or lower the "
                "floors"
            )

    def kept_units(self, total: int, pattern: Pattern) -> int:
        """Return how many of `total` units may be kept: rounded down for n:m patterns, else to the nearest, halves up.

        Raises:
            PatternError: If the result is 0.
        """
        half = Fraction(0) if isinstance(pattern, NM) else Fraction(1, 2)
        kept = int(Fraction(repr(self.density)) * total + half)
        if kept == 0:
            raise PatternError(
                f"budget {to_percent(self.density)} of {total} {unit_of(pattern)} rounds to none; raise it"
            )
        return kept

    def __str__(self) -> str:
        floors = "".join(f", {glob} >= {to_percent(floor)}" for glob, floor in self.floors.items())
        return to_percent(self.density) + floors


def unit_of(pattern: Pattern) -> str:
    """Return the name of the units that a budget counts."""
    return "blocks" if isinstance(pattern, Block) else "entries"


def check_distributable(pattern: Pattern) -> None:
    """Check that a budget can be distributed under this pattern.

    Raises:
        PatternError: If the pattern is neither n:m, nor blocks without balance, nor unstructured.
    """
    if isinstance(pattern, Block) and pattern.balance != "none":
        raise PatternError(f"{pattern}: a budget distributes blocks that may lie anywhere; leave the balance out")
    if not isinstance(pattern, (NM, Block, Unstructured)):
        raise PatternError(f"{pattern}: a budget distributes entries ('50%'), blocks, or the n of n:m, nothing else")


def count_units(pattern: Pattern, shape: tuple[int, ...]) -> int:
    """Return the number of units (blocks or entries) of a layer.

    Raises:
        PatternError: If budgets do not apply to the pattern, or the pattern does not fit the shape.
    """
    check_distributable(pattern)
    if isinstance(pattern, Block):
        down, across = pattern.blocks(_grid(pattern, shape))
        return down * across
    grid = _grid(pattern, shape)
    return grid.rows * grid.cols


def floor_units(pattern: Pattern, shape: tuple[int, ...], floor: float) -> int:
    """Return the minimum number of units that a layer keeps: at least one block or entry.

    For n:m, it is the number of entries that the sparsest pattern of `patterns_of_each_n` keeps.
    """
    if isinstance(pattern, NM):
        return int(capacity(patterns_of_each_n(pattern, floor)[0], shape))
    return max(1, math.ceil(Fraction(repr(floor)) * count_units(pattern, shape)))


def patterns_of_each_n(pattern: NM, floor: float = 0.0) -> list[NM]:
    """Return the patterns that differ from an n:m pattern only in n, sparsest first, with at least density `floor`.

    If the pattern is transposable, each has the `n_out` of the same share; an n without such an `n_out` is left out.
    """
    patterns = []
    for n in range(1, pattern.m + 1):
        if not pattern.transposable:
            patterns.append(NM(n, pattern.m, fill=pattern.fill, axis=pattern.axis, ragged=pattern.ragged))
            continue
        assert pattern.m_out is not None
        if n * pattern.m_out % pattern.m == 0:
            n_out = n * pattern.m_out // pattern.m
            patterns.append(NM(n, pattern.m, True, pattern.fill, n_out, pattern.m_out, ragged=pattern.ragged))
    return [candidate for candidate in patterns if candidate.density >= floor]


def with_kept_units(pattern: Pattern, kept: int, units: int) -> Pattern:
    """Return the pattern, of blocks or unstructured, that keeps `kept` of a layer's `units`."""
    share = kept / units
    if isinstance(pattern, Block):
        return Block(pattern.rows, pattern.cols, share, "none", pattern.norm, pattern.ragged, pattern.nested)
    return Unstructured(share)


def with_full_density(pattern: Pattern) -> Pattern:
    """Return blocks or unstructured with density 1, which fits every shape that a smaller density fits.

    Other patterns are returned unchanged.
    """
    return with_kept_units(pattern, 1, 1) if isinstance(pattern, (Block, Unstructured)) else pattern


def _grid(pattern: Pattern, shape: tuple[int, ...]) -> Grid:
    """Return the grid of a pattern, even if its own density would round to no unit."""
    return with_full_density(pattern).grid(shape)


def _share_of(value: float | str) -> float:
    """Return a share in [1e-9, 1] from a number or a percentage."""
    if not isinstance(value, str):
        return check_density(value)
    match = PERCENT.fullmatch(value)
    if match is None:
        raise PatternError(f"{value[:40]!r} is not a share; write it as a percentage, such as '50%'")
    return check_density(from_percent(match[1]))
