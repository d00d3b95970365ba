"""Cuts tensors that hold several matrices, or transposed ones, into matrices to solve, and joins their solutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from masksmith._panels import has_tiles
from masksmith._tensors import is_torch
from masksmith.layouts import Layout
from masksmith.patterns import Pattern

from .certificate import Certificate, Run, joined_pieces
from .solution import Solution, Status

RUN_STATS = frozenset({"solver", "tiles", "optimal_tiles", "solve_s", "threads", "device"})
"""Keys of `stats` that do not come from `Run.notes`."""


@dataclass(frozen=True)
class Matrices:
    """Cuts tensors of one shape into matrices `[out, in, *kernel]`, and joins the matrices' solutions.

    If fused parts are not whole tile rows or block rows, each part counts as a matrix of its own.

    Args:
        layout: How the tensor is made of matrices.
        pattern: Pattern of each matrix.
        shape: Shape of the tensors.
    """

    layout: Layout
    pattern: Pattern
    shape: tuple[int, ...]

    def split(self, tensor: Any) -> list[Any]:
        """Return the matrices of a tensor of this shape, as views.

        Raises:
            PatternError: If the shape does not match the layout, or the pattern does not fit a matrix.
        """
        ranges = self.layout.row_ranges(self.pattern, self.shape)
        return [matrix[first:last] for matrix in self.layout.matrices(tensor) for first, last in ranges]

    def tensor_index(self, number: int, index: Sequence[int]) -> tuple[int, ...]:
        """Return the index in the tensor of an entry of the matrix `number` of `split`, from its index there."""
        ranges = self.layout.row_ranges(self.pattern, self.shape)
        matrix, part = divmod(number, len(ranges))
        row = index[0] + ranges[part][0]
        return self.layout.tensor_index(self.shape, matrix, (row, *index[1:]))

    def split_solution(self, solution: Solution) -> list[Solution]:
        """Split an earlier solution of the tensor into one for each matrix: mask, duals of its tile rows, certificate.

        If the solution is of another layout or pattern, its certificate cannot be split. Then the new solutions have
        none, and serve only as warm starts. The seconds of the solve are divided equally.
        """
        parts = list[Solution]()
        masks = self.split(solution.mask)
        certificates, split_duals = self._certificates(solution, len(masks)), self._split_duals(solution, masks)
        for mask, certificate, duals in zip(masks, certificates, split_duals, strict=True):
            if certificate is None:
                parts.append(replace(solution, mask=mask, duals=duals, _certificate=None, _layout=None))
            else:
                run = replace(_joined_run([solution]), solve_s=solution.stats["solve_s"] / len(masks))
                parts.append(Solution.from_certificate(mask, certificate, run, duals=duals))
        return parts

    def join(self, solutions: Sequence[Solution], name: str | None) -> Solution:
        """Make the solution of the tensor from those of its matrices.

        Raises:
            ScoresError: If the sum of the scores overflows float64.
        """
        certificates = [solution._certificate for solution in solutions if solution._certificate is not None]
        assert len(certificates) == len(solutions), "only parts of an earlier solution may lack a certificate"
        certificate = Certificate.joined(certificates)
        mask = self._new_mask(solutions[0].mask)
        for part, solution in zip(self.split(mask), solutions, strict=True):
            part[...] = solution.mask
        run, duals = _joined_run(solutions), _joined_duals(solutions)
        joined = Solution.from_certificate(mask, certificate, run, name=name, duals=duals)
        return replace(joined, _layout=self._layout_unless_plain)

    @property
    def _layout_unless_plain(self) -> Layout | None:
        """The axes and fused parts of the layout; None if the tensor is one plain matrix."""
        is_plain = self.layout.is_plain(self.pattern, self.shape)
        return None if is_plain else Layout(self.layout.axes, self.layout.out_parts)

    def _certificates(self, solution: Solution, count: int) -> Sequence[Certificate | None]:
        """Return the certificate of each of the `count` matrices of a solution; all None if they are not known."""
        whole = solution._certificate
        if whole is None or whole.pattern != self.pattern or solution._layout != self._layout_unless_plain:
            return [None] * count
        return whole.parts or (whole,)

    def _split_duals(self, solution: Solution, masks: Sequence[Any]) -> Sequence[tuple[Any, Any] | None]:
        """Return the duals of each matrix; those of a solution of another layout may have any shape."""
        if solution.duals is None or not has_tiles(self.pattern):
            return [solution.duals] * len(masks)
        grids = [self._tile_grid(tuple(mask.shape)) for mask in masks]
        are_flat = len({across for _, across in grids}) > 1  # see `joined_pieces`
        parts, first = list[tuple[Any, Any] | None](), 0
        for down, across in grids:
            last = first + (down * across if are_flat else down)
            rows, cols = (duals[first:last] for duals in solution.duals)
            if are_flat and rows.shape[:2] == (down * across, 1):
                rows, cols = (duals.reshape(down, across, duals.shape[2]) for duals in (rows, cols))
            parts.append((rows, cols))
            first = last
        return parts

    def _tile_grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the number of a matrix's tiles that have duals, down and across; those of a dense edge have none."""
        grid = self.pattern.grid(shape)
        if self.pattern.ragged == "dense":
            return grid.rows // grid.tile_rows, grid.cols // grid.tile_cols
        return grid.down, grid.across

    def _new_mask(self, mask: Any) -> Any:
        """Return a mask of the tensor's shape, without values yet, of the library and device of another mask."""
        if not is_torch(mask):
            return np.empty(self.shape, np.bool_)
        import torch

        return torch.empty(self.shape, dtype=torch.bool, device=mask.device)


def _joined_duals(solutions: Sequence[Solution]) -> tuple[Any, Any] | None:
    """Return the duals of all solutions, one after the other; None unless each solution has duals."""
    duals = [solution.duals for solution in solutions if solution.duals is not None]
    if len(duals) < len(solutions):
        return None
    return joined_pieces([rows for rows, _ in duals]), joined_pieces([cols for _, cols in duals])


def _joined_run(solutions: Sequence[Solution]) -> Run:
    """Return one run for all solutions, from their stats; solver, device and notes are those of the first."""
    stats = [dict(solution.stats) for solution in solutions]
    return Run(
        solver=stats[0]["solver"],
        solve_s=sum(each["solve_s"] for each in stats),
        threads=max(each["threads"] for each in stats),
        device=stats[0]["device"],
        cut_short=any(solution.status is Status.TIME_LIMIT for solution in solutions),
        notes=tuple((key, value) for key, value in stats[0].items() if key not in RUN_STATS),
    )
