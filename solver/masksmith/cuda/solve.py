"""A whole tensor on the device, from scores to `Solution`: what `masksmith.solve` does for weights on a GPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from masksmith._errors import InfeasibleError, ScoresError, VerificationError
from masksmith._layer import Extras
from masksmith._panels import DROP, KEEP
from masksmith._solution import Solution, Status
from masksmith._tensors import Source, bad_score, flat_index
from masksmith.patterns import TilePattern
from masksmith.solvers.exact import SWEPT_COLD

from .device import Device
from .jit import SIMULATED
from .layer import DeviceLayer, Proofs


@dataclass
class DeviceProblem:
    """A tensor, its pattern and what else was asked, as matrices on one device.

    Args:
        scores: numpy array or torch tensor of any device; it is moved to `device` unless it is there.
        pattern: Tiles with budgets on rows and columns.
        extras: Forced entries, warm start, hysteresis, a weight to prune.
        device: Torch device.
        name: What messages call the tensor.
    """

    scores: Any
    pattern: TilePattern
    extras: Extras
    device: str | torch.device
    name: str | None = None

    def __post_init__(self) -> None:
        self.source = Source(self.scores, name=self.name)
        self.grid, self.tile = self.pattern.grid(self.source.shape), self.pattern.tile
        self.matrix = self._moved(self.source.matrix())
        dense = self.pattern.ragged == "dense"
        self.down = self.grid.rows // self.tile.rows if dense else self.grid.down
        self.across = self.grid.cols // self.tile.cols if dense else self.grid.across
        self.height, self.width = self.down * self.tile.rows, self.across * self.tile.cols
        self.weight = self._weight()

    def solve(self) -> Solution:
        """Solve, in bands of tile rows if memory demands it.

        Raises:
            ScoresError: At the first NaN, infinite or negative score.
            InfeasibleError: If forced entries leave a tile without an allowed mask.
            torch.cuda.OutOfMemoryError: If not even one row of tiles fits the device.
        """
        begun = time.perf_counter()
        shifted, forced = self._shifted(), self._forced()
        bands = list(self._bands(shifted, forced, 0, self.down)) if self.down and self.across else []
        return self._conclude([band for band, _ in bands], [proofs for _, proofs in bands], begun)

    def _moved(self, matrix: Any) -> torch.Tensor:
        tensor = matrix if isinstance(matrix, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(matrix))
        return tensor.to(self.device)

    def _padded(self, matrix: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(self.height, self.width, dtype=matrix.dtype, device=matrix.device)
        part = matrix[: self.height, : self.width]
        out[: part.shape[0], : part.shape[1]] = part
        return out

    def _bools(self, mask: Any, name: str) -> torch.Tensor:
        if tuple(mask.shape) != self.source.shape:
            raise ScoresError(f"shape {list(mask.shape)} differs from the scores' {list(self.source.shape)}", name=name)
        return self._moved(Source(mask, name=name).matrix()) != 0

    def _weight(self) -> torch.Tensor | None:
        """Give the weight if kernels can prune it: a matrix, of which every entry is in a tile."""
        whole = self.height >= self.grid.rows and self.width >= self.grid.cols
        if self.extras.weight is None or len(self.source.shape) != 2 or not whole:
            return None
        return self._moved(self.extras.weight).detach()

    def _start(self) -> torch.Tensor | None:
        start = self.extras.warm_start
        if start is None:
            return None
        return self._bools(start.mask if isinstance(start, Solution) else start, "warm_start")

    def _shifted(self) -> torch.Tensor:
        start = self._start()
        if self.extras.hysteresis > 0 and start is not None:
            return self.matrix.double() + self.extras.hysteresis * start.double()
        return self.matrix

    def _forced(self) -> torch.Tensor | None:
        keep, drop = (
            None if mask is None else self._padded(self._bools(mask, name))
            for mask, name in ((self.extras.must_keep, "must_keep"), (self.extras.must_drop, "must_drop"))
        )
        if keep is None and drop is None:
            return None
        if keep is not None and drop is not None and bool((keep & drop).any()):
            row, col = (int(k) for k in (keep & drop).nonzero()[0])
            tile = (row // self.tile.rows, col // self.tile.cols)
            raise InfeasibleError("an entry is in must_keep and in must_drop", tile, self.name)
        forced = torch.zeros(self.height, self.width, dtype=torch.uint8, device=self.device)
        if keep is not None:
            forced[keep] = KEEP
        if drop is not None:
            forced[drop] = DROP % 256
        return forced

    def _duals(self, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        start = self.extras.warm_start
        if not isinstance(start, Solution) or start.duals is None or max(self.tile.rows, self.tile.cols) <= SWEPT_COLD:
            return None
        low = 0.0 if self.tile.at_most else -np.inf
        u, v = (
            torch.nan_to_num(torch.from_numpy(part[first:last].copy()), nan=0.0, posinf=0.0, neginf=0.0).clamp(min=low)
            for part in start.duals
        )
        return u.reshape(-1, self.tile.rows).to(self.device), v.reshape(-1, self.tile.cols).to(self.device)

    def _bands(
        self, scores: torch.Tensor, forced: torch.Tensor | None, first: int, last: int
    ) -> Iterator[tuple[DeviceLayer, Proofs]]:
        """Solve tile rows `first` to `last`; what does not fit the device is split in two."""
        top, bottom = first * self.tile.rows, last * self.tile.rows
        codes = None if forced is None else forced[top:bottom]
        try:
            weight = None if self.weight is None else self.weight[top:bottom]
            band = DeviceLayer(
                scores[top:bottom, : self.width], self.tile, last - first, self.across, codes,
                self._duals(first, last), weight,
            )  # fmt: skip
            answer = self._named(band, first)
        except torch.cuda.OutOfMemoryError:
            if last - first == 1:
                raise
            middle = (first + last) // 2
            yield from self._bands(scores, forced, first, middle)
            yield from self._bands(scores, forced, middle, last)
            return
        yield band, answer

    def _named(self, band: DeviceLayer, first: int) -> Proofs:
        """Solve a band; name tensor and place, as the whole tensor counts them, of what is at fault."""
        try:
            proofs = band.solve()
        except InfeasibleError as error:
            tile = None if error.tile is None else (error.tile[0] + first, error.tile[1])
            raise InfeasibleError(error.reason, tile, self.name) from None
        if proofs.bad is not None:
            row, col = divmod(proofs.bad, band.scores.shape[1])
            value = float(self.matrix[first * self.tile.rows + row, col])
            position = (first * self.tile.rows + row) * self.grid.cols + col
            index = flat_index(position, self.source.shape, "in")
            raise ScoresError(bad_score(value), index, self.name)
        if not proofs.legal.all():
            i, j = (int(k[0]) for k in np.nonzero(~proofs.legal))
            raise VerificationError(
                f"{self.name or 'scores'}: the device's mask breaks {self.pattern} in tile [{first + i}, {j}]; "
                "please report this"
            )
        return proofs

    def _conclude(self, bands: list[DeviceLayer], proofs: list[Proofs], begun: float) -> Solution:
        """Put bands together."""
        shape = (self.down, self.across)
        objectives, violations, totals = (
            np.concatenate([getattr(part, field) for part in proofs]) if proofs else np.zeros(shape)
            for field in ("objective", "violation", "total")
        )
        matrix = torch.ones(self.grid.rows, self.grid.cols, dtype=torch.bool, device=self.device)
        inner = [band.state.mask for band in bands]
        if inner:
            whole = torch.cat(inner)[: self.grid.rows, : self.grid.cols] != 0
            matrix[: whole.shape[0], : whole.shape[1]] = whole
        edge = self._edge()
        objective, violation = float(objectives.sum()) + edge, float(violations.sum())
        unshifted = objective if not self.extras.hysteresis else float((self.matrix.double() * matrix).sum())
        return Solution(
            mask=self._shaped(matrix),
            pattern=self.pattern,
            objective=objective,
            upper_bound=objective if violation == 0.0 else float(np.nextafter(objective + violation, np.inf)),
            status=Status.OPTIMAL if violation == 0.0 else Status.FEASIBLE,
            tile_objectives=objectives,
            tile_bounds=objectives + violations,
            total_score=self._total(totals, edge),
            kept=int(matrix.sum()),
            unshifted_objective=unshifted,
            stats=self._stats(violations, time.perf_counter() - begun),
            duals=self._kept_duals(bands),
            pruned=self._emitted([band.pruned for band in bands]),
            packed=self._emitted([band.packed for band in bands]),
        )

    def _edge(self) -> float:
        """Sum the scores of a dense edge."""
        if self.pattern.ragged != "dense":
            return 0.0
        below, right = self.matrix[self.height :], self.matrix[: self.height, self.width :]
        return float(below.double().sum() + right.double().sum())

    def _total(self, totals: Any, edge: float) -> float:
        return float(self.matrix.double().sum()) if self.extras.hysteresis else float(totals.sum()) + edge

    def _stats(self, violations: Any, seconds: float) -> dict[str, Any]:
        device = Device(torch.device(self.device))
        return {
            "solver": "exact",
            "tiles": violations.size,
            "optimal_tiles": int((violations == 0).sum()),
            "solve_s": seconds,
            "threads": 1,
            "device": device.label,
            "device_name": device.name,
        }

    def _kept_duals(self, bands: list[DeviceLayer]) -> Any:
        if not self.extras.keep_duals:
            return None
        shape = (self.down, self.across)
        rows, cols = (
            torch.cat([getattr(band.state, name) for band in bands]).cpu().numpy().reshape(*shape, length)
            for name, length in (("row_duals", self.tile.rows), ("col_duals", self.tile.cols))
        )
        return rows, cols

    def _emitted(self, parts: list[torch.Tensor]) -> Any:
        """Put together what kernels wrote, where the weight lives and in its library."""
        if self.weight is None:
            return None
        whole = torch.cat(parts)
        given = self.extras.weight
        return whole.to(given.device) if isinstance(given, torch.Tensor) else whole.cpu().numpy()

    def _shaped(self, matrix: torch.Tensor) -> Any:
        """Give the mask in the weight's shape, library and device."""
        shape = self.source.shape
        mask = matrix.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
        if isinstance(self.scores, torch.Tensor):
            return mask.to(self.scores.device)
        return mask.cpu().numpy()


def solve_on(device: str, scores: Any, pattern: TilePattern, extras: Extras, name: str | None = None) -> Solution:
    """Solve one tensor on a CUDA device, exactly; arguments as `masksmith.solve` takes them."""
    return DeviceProblem(scores, pattern, extras, "cpu" if SIMULATED else device, name).solve()
