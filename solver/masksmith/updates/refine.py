"""Refinement: exchanges kept entries of a mask for dropped ones to lower the output's error; weights do not change."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from masksmith._errors import UpdateError
from masksmith._solve import solve
from masksmith._tensors import is_torch
from masksmith._torch_modes import in_full_precision
from masksmith._verify.verify import verify
from masksmith.kernels.exchanges import exchange_in_groups, exchange_in_tiles
from masksmith.patterns import NM, Pattern
from masksmith.patterns.grammar import read_pattern

from .operands import Operands, read, read_mask
from .threads import update_threads
from .update import ratio

OnProgress = Callable[[int, int], None]
Doubles = npt.NDArray[np.float64]

SWEEPS = 100
"""Maximum number of sweeps over the groups or tiles of a band."""
ROUNDING_OF_FLOAT32 = 2e-7
"""Bound on the relative rounding error of scores in float32."""
MIN_SHARE, ROUNDING = 1e-9, 1e-13
"""An exchange is made only if it lowers the error by more than `MIN_SHARE * e + ROUNDING * s`.

`e` is the error of the band of rows before the refinement. `s = (sum_j |w_j| sqrt(G_jj))^2`, summed over the rows w of
the band, is an upper bound on the band's error with any mask: a decrease by less than `ROUNDING * s` may be a rounding
error.
"""


@dataclass(frozen=True, eq=False)
class Refinement:
    """A mask that was refined by exchanges, and a lower bound on the error of any mask of the pattern.

    Attributes:
        mask: Bool, True = kept; shape, library and device of the weight.
        error: Squared error of the output with the masked weights, `||X (W - M * W)^T||^2`, in float64.
        start_error: Squared error with the mask passed to `refine`; never less than `error`.
        energy: `||X W^T||^2`, the squared norm of the original output.
        lower_bound: No mask of the pattern has a smaller error. The bound is cheap and loose: on layers of MiniLM
            `error` is 30 to a million times larger. It is 0 if the Gram matrix, without the inputs that are always 0,
            is singular or nearly so.
        stats: Method; number of exchanges (under transposable patterns, of pairs of exchanges), also counting rows
            whose first mask was restored; seconds.
    """

    mask: Any
    error: float
    start_error: float
    energy: float
    lower_bound: float
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def relative_error(self) -> float:
        """`error / energy`; 0 when both are 0, infinite when only `energy` is 0."""
        return ratio(self.error, self.energy, 0.0)

    @property
    def looseness(self) -> float:
        """`error / lower_bound`: 1 proves that the mask is the best one; infinite if only the bound is 0."""
        return ratio(self.error, self.lower_bound, 1.0)

    def __repr__(self) -> str:
        gain = ratio(self.start_error, self.error, 1.0)
        return f"Refinement(relative_error={self.relative_error:.4g}, gain={gain:.4g}, looseness={self.looseness:.3g})"


@in_full_precision()
def refine(
    weight: Any,
    mask: Any,
    gram: Any,
    pattern: Pattern | str,
    *,
    threads: int | None = None,
    name: str | None = None,
    on_progress: OnProgress | None = None,
) -> Refinement:
    """Lower the output's error of a mask by exchanges inside its pattern; the weights are not changed.

    The error of a row is `d G d^T` with d the dropped weights and `G = X^T X`; the change of the error by an exchange
    is computed exactly, up to rounding. Under plain patterns, the best exchange of a kept and a dropped entry of a
    group is made; under transposable ones, the best pair of opposite exchanges of two columns in two rows of a tile,
    which keeps all counts. Sweeps over the groups or tiles end at a local optimum, where no exchange lowers the error
    by more than a small margin for rounding, or after 100 sweeps. Then the errors are recomputed in float64: a row, or
    under transposable patterns a band of tiles, keeps its first mask if its error did not decrease.

    The lower bound is `l * min over masks of the sum of G_jj w_ij^2 over dropped entries`, solved exactly, with l the
    smallest eigenvalue of G scaled to a unit diagonal: `G - l diag(G)` is positive semidefinite.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        mask: Bool, the weight's shape, True = kept; allowed by the pattern.
        gram: `X^T X` of the layer's inputs, as for `reconstruct`.
        pattern: Plain (groups along `in`) or transposable N:M.
        threads: Number of threads; by default torch's setting.
        name: Name of the weight in error messages.
        on_progress: Called with (rows done, total rows); an exception in it stops the refinement.

    Returns:
        The mask, the error before and after the refinement, and the bound.

    Raises:
        UpdateError: As `reconstruct`; or if the pattern does not allow the mask, or is neither plain N:M along `in` nor
            transposable N:M.
        PatternError: If the pattern is malformed or does not fit the shape.
    """
    started = time.perf_counter()
    parsed = read_pattern(pattern)
    if not isinstance(parsed, NM) or parsed.axis != "in":
        raise UpdateError(f"{parsed} cannot be refined; only plain N:M along 'in' and transposable N:M can", name)
    operands = read(weight, gram, 0.0, name)
    start, shape = read_mask(mask, operands), tuple(operands.original.shape)
    verdict = verify(operands.like_weight(start), parsed)
    if not verdict:
        raise UpdateError(f"the mask does not match {parsed}: {verdict}", name)
    bands, exchanges = _refine_bands(operands, start, shape, parsed, threads, on_progress)
    order = _group_order(shape)
    refined = torch.from_numpy(np.ascontiguousarray(bands.mask[:, np.argsort(order)])).to(start.device)
    bound = _lower_bound(operands.like_weight(operands.weight.double()), operands.gram, parsed)
    stats = {"method": "refine", "exchanges": exchanges, "refine_s": time.perf_counter() - started}
    before, after = float(bands.before.sum()), float(bands.after.sum())
    return Refinement(operands.like_weight(refined), after, before, bands.energy(), min(bound, after), stats)


def _refine_bands(
    operands: Operands,
    mask: torch.Tensor,
    shape: tuple[int, ...],
    pattern: NM,
    threads: int | None,
    on_progress: OnProgress | None,
) -> tuple[_Bands, int]:
    """Refine a mask, with the inputs in the order of groups; return the refined bands, and the number of exchanges."""
    order = _group_order(shape)
    dense = operands.weight.double().cpu().numpy()[:, order]
    bands = _Bands(dense, mask.cpu().numpy()[:, order], operands.gram.cpu().numpy()[order][:, order], pattern)
    with update_threads(threads, operands.name):
        return bands, bands.run(torch.get_num_threads(), on_progress)


class _Bands:
    """Bands of rows that are refined independently: single rows, or rows of tiles.

    Attributes:
        mask: `[out, inputs]`, with inputs in the order of groups.
        gram: `[inputs, inputs]`, in the same order.
        before: `[bands]`, errors with the first mask.
        after: `[bands]`, errors with the current mask.
    """

    def __init__(self, dense: Doubles, mask: npt.NDArray[np.bool_], gram: Doubles, pattern: NM) -> None:
        self._dense, self._pattern = np.ascontiguousarray(dense), pattern
        self.mask, self.gram = np.ascontiguousarray(mask), np.ascontiguousarray(gram)
        self._firsts = np.arange(0, len(dense), pattern.tile.rows)  # [bands], index of each band's first row
        self._products = (~mask * dense) @ gram  # `d G` of the dropped weights d of each row
        self.before = np.add.reduceat(self._errors(self._products, mask), self._firsts)
        self.after = self.before.copy()
        magnitude = (np.abs(dense) @ np.sqrt(gram.diagonal())) ** 2
        self._min_decreases = MIN_SHARE * self.before + ROUNDING * np.add.reduceat(magnitude, self._firsts)
        self._min_decreases += np.finfo(np.float64).tiny  # positive even if the first error is 0

    def energy(self) -> float:
        """Return the squared norm of the layer's output, `||X W^T||^2`."""
        return max(0.0, float(np.sum((self._dense @ self.gram) * self._dense)))

    def run(self, threads: int, on_progress: OnProgress | None) -> int:
        """Refine all bands; return the number of exchanges (in tiles, of pairs), also counting restored bands."""
        strips = np.array_split(np.arange(len(self._firsts)), min(len(self._firsts), 4 * threads))
        exchanges = bands_done = 0
        with ThreadPoolExecutor(threads) as pool:
            for strip, strip_exchanges in zip(strips, pool.map(self._refine, strips), strict=True):
                exchanges += strip_exchanges
                bands_done += len(strip)
                if on_progress is not None:
                    on_progress(min(bands_done * self._pattern.tile.rows, len(self.mask)), len(self.mask))
        return exchanges

    def _refine(self, bands: npt.NDArray[np.int64]) -> int:
        """Refine the bands with these neighbouring indices; restore the masks of bands whose error did not decrease.

        Returns:
            The number of exchanges (in tiles, of pairs), also counting restored bands.
        """
        tile = self._pattern.tile
        rows = slice(int(self._firsts[bands[0]]), int(self._firsts[bands[-1]]) + tile.rows)
        dense, mask, products = self._dense[rows], self.mask[rows], self._products[rows]
        original, min_decreases = mask.copy(), self._min_decreases[bands]
        if tile.separable:
            exchanges = exchange_in_groups(dense, mask, products, self.gram, tile.cols, min_decreases, SWEEPS)
        else:
            exchanges = 0
            for band, first in enumerate(range(0, len(dense), tile.rows)):
                band_rows = slice(first, first + tile.rows)
                arrays = (dense[band_rows], mask[band_rows], products[band_rows], self.gram)
                exchanges += exchange_in_tiles(*arrays, tile.cols, float(min_decreases[band]), SWEEPS)
        firsts = np.arange(0, len(dense), tile.rows)
        errors = np.add.reduceat(self._errors((~mask * dense) @ self.gram, mask, rows), firsts)
        is_restored = ~(errors < self.before[bands])
        restored_rows = np.repeat(is_restored, tile.rows)[: len(dense)]
        mask[restored_rows] = original[restored_rows]
        self.after[bands] = np.where(is_restored, self.before[bands], errors)
        return exchanges

    def _errors(self, products: Doubles, mask: npt.NDArray[np.bool_], rows: slice = slice(None)) -> Doubles:
        """Return the error of each row, `d G d^T`, from the products `d G` of the dropped weights d."""
        errors: Doubles = np.sum(products * (~mask * self._dense[rows]), axis=1)
        return np.maximum(errors, 0.0)  # below 0 by rounding errors alone


def _group_order(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Return the inputs in the order of groups, in which channels vary fastest and positions of the kernel slowest."""
    inputs = np.arange(int(np.prod(shape[1:])))
    return np.ascontiguousarray(inputs.reshape(shape[1], -1).T).ravel()


def _lower_bound(weight: Any, gram: torch.Tensor, pattern: NM) -> float:
    """Return a lower bound on the error of any mask of the pattern.

    Args:
        weight: The weight in float64, in its shape and library.
        gram: `[inputs, inputs]`.
        pattern: Pattern of the masks.
    """
    diagonal = gram.diagonal()
    non_zero = diagonal > 0
    if not bool(non_zero.any()):
        return 0.0
    scale = diagonal[non_zero].sqrt()
    scaled = gram[non_zero][:, non_zero] / scale[:, None] / scale[None, :]
    smallest = float(torch.linalg.eigvalsh(scaled)[0])
    smallest -= 4 * len(scaled) * np.finfo(np.float64).eps * float(scaled.abs().sum(1).max())  # rounding of eigvalsh
    if smallest <= 0:
        return 0.0
    matrix = weight if is_torch(weight) else torch.from_numpy(weight)
    scores = (matrix.reshape(len(matrix), -1).square() * diagonal).reshape(matrix.shape)
    largest = float(scores.max()) or 1.0
    scores = (scores / largest).float()  # float32, for which the kernels are compiled already
    solution = solve(scores if is_torch(weight) else scores.numpy(), pattern)
    total = float(scores.double().sum())
    return smallest * largest * max(total * (1 - ROUNDING_OF_FLOAT32) - solution.upper_bound, 0.0)
