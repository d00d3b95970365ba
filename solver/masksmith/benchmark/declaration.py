"""Declarations of kernels: supported devices, dtypes, shapes, patterns, directions. Standard library only.

A declaration is plain data, so that a service without torch can reject unsupported cases, and a worker can announce
kernels that are not installed at the service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from masksmith.patterns import NM, VNM, Block, DoublePruned, Hybrid, Pattern

from .cases import DIRECTIONS, Case, Direction

Family = Literal["any", "n:m", "2:4", "block"]
Constraint = Literal["device", "dtype", "shape", "pattern", "direction"]


class Refusal(NamedTuple):
    """Why a kernel does not support a case (`reason`), and the kind of constraint that the case violates."""

    constraint: Constraint
    reason: str


@dataclass(frozen=True)
class Support:
    """Capabilities of a kernel on one kind of device.

    Attributes:
        dtypes: For each dtype, two numbers: the rows of `Case.matrix` must be a multiple of the first, its columns of
            the second.
        least_block: Smallest side of a block; block kernels only.
        square: Whether blocks must be square; block kernels only.
        power_of_two: Whether the sides of blocks must be powers of two; block kernels only.
    """

    dtypes: Mapping[str, tuple[int, int]]
    least_block: int = 1
    square: bool = False
    power_of_two: bool = False


@dataclass(frozen=True)
class Declaration:
    """Capabilities of a kernel.

    Attributes:
        name: Name of the kernel.
        meaning: Description, one sentence.
        support: Capabilities by kind of device: `cpu`, `cuda`.
        family: Which patterns are supported. `any`: all of them; `n:m`: those that imply n:m groups along the rows of
            `Case.matrix`; `2:4`: those that imply 2:4 along these rows; `block`: those that drop whole blocks.
        directions: Supported products.
        curve: Patterns, from dense to sparse, to measure for the break-even density; empty for baselines.
    """

    name: str
    meaning: str
    support: Mapping[str, Support]
    family: Family = "any"
    directions: tuple[Direction, ...] = DIRECTIONS
    curve: tuple[str, ...] = ()

    def refusal(self, case: Case, device: str) -> Refusal | None:
        """Return why this kernel does not support a case on a device (`cpu`, `cuda:1`), or None."""
        device_type = device.partition(":")[0]
        support = self.support.get(device_type)
        if support is None:
            return Refusal("device", f"it runs on {_joined(self.support)}, not on {device_type}")
        if case.dtype not in support.dtypes:
            return Refusal("dtype", f"it has no {case.dtype} on {device_type}, only {_joined(support.dtypes)}")
        if case.direction not in self.directions:
            return Refusal("direction", f"it computes {_joined(self.directions)} products only")
        return self._pattern_refusal(case, support) or self._shape_refusal(case, support.dtypes[case.dtype])

    def _shape_refusal(self, case: Case, multiples: tuple[int, int]) -> Refusal | None:
        for total, factor, name in zip(case.matrix, multiples, ("rows", "columns"), strict=True):
            if total % factor:
                matrix_name = _MATRIX_NAMES[case.direction]
                return Refusal(
                    "shape", f"{total} {name} of {matrix_name} ({case.dtype}) are not a multiple of {factor}"
                )
        return None

    def _pattern_refusal(self, case: Case, support: Support) -> Refusal | None:
        if self.family == "any":
            return None
        if self.family == "block":
            return _block_refusal(case, support)
        budget, matrix_name = row_budget(case.rule, case.direction), _MATRIX_NAMES[case.direction]
        if budget is None:
            return Refusal("pattern", f"{case.pattern} does not imply n:m along the rows of {matrix_name}")
        if self.family == "2:4" and not _implies_two_of_four(*budget):
            return Refusal("pattern", f"{case.pattern} does not imply 2:4 along the rows of {matrix_name}")
        cols = case.matrix[1]
        if cols % budget[1]:
            return Refusal(
                "shape", f"{cols} columns of {matrix_name} are not a multiple of the group length {budget[1]}"
            )
        return None

    def document(self) -> dict[str, Any]:
        """Return the declaration as a dict for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Declaration:
        """Build a declaration from the result of `document`."""
        support = {
            device: Support(**{**fields, "dtypes": {dtype: tuple(pair) for dtype, pair in fields["dtypes"].items()}})
            for device, fields in document["support"].items()
        }
        lists = {key: tuple(document[key]) for key in ("directions", "curve")}
        return cls(**{**document, **lists, "support": support})


_MATRIX_NAMES = {"forward": "W", "backward": "W^T"}
"""Name in messages of the matrix A of the product `X A^T`, by direction."""


def row_budget(pattern: Pattern, direction: Direction) -> tuple[int, int] | None:
    """Return (n, m) if the pattern implies at most n of every m along the rows of A, else None.

    A is W forward, and W^T backward.
    """
    if isinstance(pattern, NM) and pattern.transposable:
        assert pattern.n_out is not None
        assert pattern.m_out is not None
        return (pattern.n, pattern.m) if direction == "forward" else (pattern.n_out, pattern.m_out)
    if isinstance(pattern, NM):
        supported_direction = "forward" if pattern.axis == "in" else "backward"
        return (pattern.n, pattern.m) if direction == supported_direction else None
    if isinstance(pattern, DoublePruned):
        return pattern.n, pattern.m
    if isinstance(pattern, VNM) and direction == "forward":
        return pattern.n, pattern.m
    if isinstance(pattern, Block) and pattern.nested is not None:
        return row_budget(pattern.nested, direction)
    return None


def block_size(pattern: Pattern, direction: Direction) -> tuple[int, int] | None:
    """Return height and width of the blocks of W (forward) or W^T (backward); None if the pattern has no blocks."""
    if not isinstance(pattern, Block):
        return None
    return (pattern.rows, pattern.cols) if direction == "forward" else (pattern.cols, pattern.rows)


def _block_refusal(case: Case, support: Support) -> Refusal | None:
    size = block_size(case.rule, case.direction)
    if size is None:
        reason = "keeps entries of every block" if isinstance(case.rule, Hybrid) else "has no blocks"
        return Refusal("pattern", f"{case.pattern} {reason}")
    if support.square and size[0] != size[1]:
        return Refusal("pattern", f"blocks of {size[0]}x{size[1]} are not square")
    for side in size:
        if side < support.least_block or (support.power_of_two and side & (side - 1)):
            powers = "powers of two and " if support.power_of_two else ""
            return Refusal("pattern", f"a block side of {side}: sides must be {powers}at least {support.least_block}")
    for total, side, name in zip(case.matrix, size, ("rows", "columns"), strict=True):
        if total % side:
            return Refusal("shape", f"{total} {name} are not a multiple of the block side {side}")
    return None


def _implies_two_of_four(n: int, m: int) -> bool:
    """Whether at most n of every m implies at most 2 of every 4; False unless one of m and 4 divides the other."""
    return (4 % m == 0 and n * (4 // m) <= 2) or (m % 4 == 0 and n <= 2)


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
