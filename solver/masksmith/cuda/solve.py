"""Solves a whole problem on a CUDA device, from scores to `Solution`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from masksmith._errors import overflow_error
from masksmith._panels import DROP, KEEP
from masksmith._problem import Problem
from masksmith._solution import Certificate, Run, Solution
from masksmith._tensors import MatrixReader
from masksmith.solvers._duals.ascent_schedule import MAX_COLD_SIDE

from .band import Band, BandCertificate
from .jit import SIMULATED
from .launcher import Launcher


class DeviceSolve:
    """Copies scores, masks and weight of a problem to one device, and solves the problem there.

    Args:
        problem: A problem whose tiles have budgets on rows and columns.
        device: Torch device to solve on.
    """

    def __init__(self, problem: Problem, device: str | torch.device) -> None:
        self.problem, self.device, self.tile = problem, torch.device(device), problem.tile
        self.scores = self._to_device(problem.source.matrix())
        self.weight = self._weight()

    def solve(self) -> Solution:
        """Solve the problem, in several bands of tile rows if it does not fit into memory.

        Raises:
            ScoresError: At the first NaN, infinite or negative score, or if their sum overflows float64.
            InfeasibleError: If forced entries leave a tile without an allowed mask.
            VerificationError: If the mask violates the pattern.
            torch.cuda.OutOfMemoryError: If a copy of the tensor, or one row of tiles, does not fit into the memory.
        """
        started, problem = time.perf_counter(), self.problem
        with_bonus, forced = self._scores_with_bonus(), self._forced()
        bands = list(self._solved_bands(with_bonus, forced, 0, problem.down)) if problem.down and problem.across else []
        return self._solution([band for band, _ in bands], [certificate for _, certificate in bands], started)

    def _to_device(self, matrix: Any) -> torch.Tensor:
        if not isinstance(matrix, torch.Tensor):
            # Arrays of ml_dtypes (bfloat16, float8) have dtypes that torch does not take from numpy.
            matrix = matrix if is_taken_by_torch(matrix.dtype) else matrix.astype(np.float32)
            matrix = torch.from_numpy(np.require(matrix, requirements=["C", "W"]))
        return matrix.to(self.device)

    def _bool_matrix(self, mask: MatrixReader) -> torch.Tensor:
        return self._to_device(mask.matrix()) != 0

    def _crop_or_pad(self, matrix: torch.Tensor) -> torch.Tensor:
        """Crop (`ragged="dense"`) or pad with zeros to the size of all tiles together."""
        height, width = self.problem.height, self.problem.width
        out = torch.zeros(height, width, dtype=matrix.dtype, device=matrix.device)
        part = matrix[:height, :width]
        out[: part.shape[0], : part.shape[1]] = part
        return out

    def _weight(self) -> torch.Tensor | None:
        """Return the weight if kernels can prune it: if it is a matrix and every entry is in a tile; else None."""
        problem, weight = self.problem, self.problem.options.weight
        covered = problem.height >= problem.grid.rows and problem.width >= problem.grid.cols
        if weight is None or len(problem.source.tensor_shape) != 2 or not covered:
            return None
        if not (isinstance(weight, torch.Tensor) or is_taken_by_torch(weight.dtype)):
            return None  # the pruned weight would be of another dtype
        return self._to_device(weight).detach()

    def _scores_with_bonus(self) -> torch.Tensor:
        """Return the scores; with a warm start, the hysteresis bonus is added to the entries that it keeps."""
        if not self.problem.bonus or self.problem.start is None:
            return self.scores
        scores = self.scores.double()
        # Scores that are not valid get no bonus, which could make a negative score positive: the kernels find them.
        has_bonus = self._bool_matrix(self.problem.start) & (scores >= 0)
        with_bonus = scores + self.problem.bonus * has_bonus.double()
        # Infinite scores are refused later, with their index.
        if bool(torch.isinf(with_bonus.sum()) & torch.isfinite(scores).all()):
            raise overflow_error(self.problem.name)
        return with_bonus

    def _forced(self) -> torch.Tensor | None:
        """Return codes of forced entries, `[height, width]` uint8: 1 keep, 255 drop, 0 free; None without masks."""
        problem = self.problem
        if not problem.may_force_entries:
            return None
        shape = (problem.height, problem.width)
        keep, drop = (
            torch.zeros(shape, dtype=torch.bool, device=self.device)
            if mask is None
            else self._crop_or_pad(self._bool_matrix(mask))
            for mask in (problem.must_keep, problem.must_drop)
        )
        conflicts = (keep & drop).nonzero()
        if len(conflicts):
            raise problem.conflict_error(*(int(place) for place in conflicts[0]))
        forced = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        forced[keep], forced[drop] = KEEP, DROP % 256
        return forced

    def _start_duals(self, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return initial duals of tile rows `first` to `last`, `[tiles, rows]` and `[tiles, cols]`.

        NaN and infinity are replaced by 0; with at-most budgets, negative duals, too. None if the problem has no duals
        for its grid, or its tiles are so small that initial duals save no time.
        """
        duals = self.problem.start_duals(first, last)
        if duals is None or max(self.tile.rows, self.tile.cols) <= MAX_COLD_SIDE:
            return None
        low = 0.0 if self.tile.at_most else -np.inf
        u, v = (
            torch.nan_to_num(torch.from_numpy(part.copy()), nan=0.0, posinf=0.0, neginf=0.0).clamp(min=low)
            for part in duals
        )
        return u.reshape(-1, self.tile.rows).to(self.device), v.reshape(-1, self.tile.cols).to(self.device)

    def _solved_bands(
        self, scores: torch.Tensor, forced: torch.Tensor | None, first: int, last: int
    ) -> Iterator[tuple[Band, BandCertificate]]:
        """Solve tile rows `first` to `last` in bands; a band that does not fit into device memory is split in two."""
        solved = self._try_band(scores, forced, first, last)
        if solved is not None:
            yield solved
            return
        # Here no traceback keeps the tensors of the failed band in device memory.
        middle = (first + last) // 2
        yield from self._solved_bands(scores, forced, first, middle)
        yield from self._solved_bands(scores, forced, middle, last)

    def _try_band(
        self, scores: torch.Tensor, forced: torch.Tensor | None, first: int, last: int
    ) -> tuple[Band, BandCertificate] | None:
        """Solve tile rows `first` to `last`; return None if they do not fit into device memory and can be split."""
        top, bottom = first * self.tile.rows, last * self.tile.rows
        forced_band = None if forced is None else forced[top:bottom]
        try:
            weight = None if self.weight is None else self.weight[top:bottom]
            band = Band(
                scores[top:bottom, : self.problem.width], self.tile, last - first, self.problem.across, forced_band,
                self._start_duals(first, last), weight,
            )  # fmt: skip
            return band, self._solve_band(band, first)
        except torch.cuda.OutOfMemoryError:
            if last - first == 1:
                raise
            return None

    def _solve_band(self, band: Band, first: int) -> BandCertificate:
        """Solve the band that begins at tile row `first`; errors have indices in the whole tensor."""
        with self.problem.locating_errors(first):
            certificate = band.solve()
        if certificate.first_invalid is not None:
            row, col = divmod(certificate.first_invalid, band.scores.shape[1])
            row += first * self.tile.rows
            value = float(self.scores[row, col])
            raise self.problem.source.invalid_score_error(row * self.problem.grid.cols + col, value)
        if not certificate.legal.all():
            i, j = (int(k[0]) for k in np.nonzero(~certificate.legal))
            raise self.problem.violation_error(first + i, j)
        return certificate

    def _solution(self, bands: list[Band], certificates: list[BandCertificate], started: float) -> Solution:
        """Build the solution from the bands and their certificates, in the order of their rows."""
        problem = self.problem
        objectives, violations, totals = (
            np.concatenate([getattr(certificate, field) for certificate in certificates])
            if certificates
            else np.zeros((problem.down, problem.across))
            for field in ("objective", "violation", "total")
        )
        mask = torch.ones(problem.grid.rows, problem.grid.cols, dtype=torch.bool, device=self.device)
        if bands:
            solved = torch.cat([band.results.mask for band in bands])[: problem.grid.rows, : problem.grid.cols] != 0
            mask[: solved.shape[0], : solved.shape[1]] = solved
        edge_score = self._edge_score()
        # With a hysteresis bonus, the totals of the tiles contain the bonus, so the original scores are summed again.
        with np.errstate(over="ignore"):
            total = float(self.scores.double().sum()) if problem.bonus else float(totals.sum()) + edge_score
        certificate = Certificate(
            problem.pattern,
            objectives,
            violations,
            total_score=total,
            kept=int(mask.sum()),
            edge_score=edge_score + self._edge_bonus(),
            kept_score=float((self.scores.double() * mask).sum()) if problem.bonus else None,
        )
        launcher = Launcher(self.device)
        notes = (("device_name", launcher.name),)
        run = Run("exact", time.perf_counter() - started, 1, launcher.label, notes=notes)
        return Solution.from_certificate(
            self._like_scores(mask),
            certificate,
            run,
            name=problem.name,
            duals=self._kept_duals(bands),
            pruned=self._like_weight([band.pruned for band in bands]),
            packed=self._like_weight([band.packed for band in bands]),
        )

    def _edge_bonus(self) -> float:
        """Return the hysteresis bonus of the dense edge."""
        problem = self.problem
        if problem.start is None or not problem.bonus or problem.pattern.ragged != "dense":
            return 0.0
        kept_before = self._bool_matrix(problem.start)
        in_tiles = kept_before[: problem.height, : problem.width]
        return problem.bonus * (int(kept_before.sum()) - int(in_tiles.sum()))

    def _edge_score(self) -> float:
        """Sum the scores of the dense edge, outside the tiles; 0 without one.

        Raises:
            ScoresError: If one of these scores is negative, NaN or infinite; kernels check only the scores of tiles.
        """
        if self.problem.pattern.ragged != "dense":
            return 0.0
        height, width = self.problem.height, self.problem.width
        total = 0.0
        for first_row, first_col, part in ((0, width, self.scores[:height, width:]), (height, 0, self.scores[height:])):
            invalid = (~((part >= 0) & torch.isfinite(part))).nonzero()
            if len(invalid):
                row, col = (int(place) for place in invalid[0])
                index = (first_row + row) * self.problem.grid.cols + first_col + col
                raise self.problem.source.invalid_score_error(index, float(part[row, col]))
            total += float(part.double().sum())
        return total

    def _kept_duals(self, bands: list[Band]) -> Any:
        """Return the duals of the solution, on the host; None without `keep_duals`."""
        if not self.problem.options.keep_duals:
            return None
        shape = (self.problem.down, self.problem.across)
        rows, cols = (
            torch.cat([getattr(band.results, name) for band in bands]).cpu().numpy().reshape(*shape, length)
            if bands
            else np.zeros((*shape, length))
            for name, length in (("row_duals", self.tile.rows), ("col_duals", self.tile.cols))
        )
        return rows, cols

    def _like_weight(self, parts: list[torch.Tensor]) -> Any:
        """Concatenate outputs of the bands: as a tensor on the weight's device if the weight is one, else as an array.

        None without a weight that kernels can prune.
        """
        if self.weight is None:
            return None
        output, weight = torch.cat(parts), self.problem.options.weight
        return output.to(weight.device) if isinstance(weight, torch.Tensor) else output.cpu().numpy()

    def _like_scores(self, mask: torch.Tensor) -> Any:
        """Return the mask in the tensor's shape, as a torch tensor on the device of the scores, or as a numpy array."""
        shape, scores = self.problem.source.shape, self.problem.scores
        mask = mask.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1).reshape(self.problem.source.tensor_shape)
        return mask.to(scores.device) if isinstance(scores, torch.Tensor) else mask.cpu().numpy()


def is_taken_by_torch(dtype: np.dtype[Any]) -> bool:
    """Whether torch has a dtype for arrays of a dtype of numpy."""
    try:
        torch.from_numpy(np.empty(0, dtype))
    except TypeError:
        return False
    return True


def solve_on(device: str, problem: Problem) -> Solution:
    """Solve a problem exactly on a CUDA device (in the simulator: on the CPU); raises like `DeviceSolve.solve`."""
    if SIMULATED:
        return DeviceSolve(problem, "cpu").solve()
    # numba launches in the current context of CUDA, whatever the device of the tensors.
    with torch.cuda.device(device):
        return DeviceSolve(problem, device).solve()
