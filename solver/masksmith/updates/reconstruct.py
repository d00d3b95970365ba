"""Reconstruction: the kept weights of each row are set to the least-squares optimum on its support."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from masksmith._errors import UpdateError
from masksmith._torch_modes import in_full_precision

from .cholesky import factorised_shift
from .conjugate_gradients import squared_norms
from .operands import Operands, read, read_mask
from .strips import Strip, converge, rows_at_once
from .supports import batches, is_factorised
from .system import ScaledSystem
from .threads import update_threads
from .update import Update

OnProgress = Callable[[int, int], None]
Tensor = torch.Tensor

TOLERANCE = 5e-3
"""Default of `tolerance` (see `reconstruct`)."""


@in_full_precision()
def reconstruct(
    weight: Any,
    mask: Any,
    gram: Any,
    *,
    damping: float = 0.01,
    tolerance: float = TOLERANCE,
    rounded_to: str | None = None,
    threads: int | None = None,
    name: str | None = None,
    on_progress: OnProgress | None = None,
) -> Update:
    """Set the kept weights to the values that change the layer's output least, by least squares.

    With `G = X^T X`, for each row `w` with its mask `s`, the result is

        argmin over v with v = s * v of  (v - w)^T G (v - w) + damping * mean(diag(G)) * ||v - s * w||^2.

    The damping is centred on the masked weights `s * w`, so `E(v) = (v - w)^T G (v - w)`, the error on the calibration
    data, is never larger than `E(s * w)`: the minimiser's objective is at most that of `s * w`, whose damping term is
    0; so `E(v) <= E(v) + damping term <= E(s * w)`. This holds under rounding, too: a row whose rounded values do not
    decrease `E`, in float64, keeps its masked weights.

    On the support S, with P the dropped entries and `c = damping * mean(diag(G))`,
    `v_S = w_S + (G_SS + c I)^-1 G_SP w_P`. Many rows are solved at once by preconditioned conjugate gradients (each
    iteration is one matrix product) until an upper bound proves for each row that its objective exceeds the minimum by
    a share of at most `tolerance`; the bound is checked with residuals in float64. Three kinds of supports are
    factorised instead: those of rows that do not converge; small ones; and those that many rows share. For the last
    two, a factorisation costs less.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        mask: Bool, the weight's shape, True = kept; any mask.
        gram: `X^T X` of the layer's inputs, `[inputs, inputs]`, in the order of the flattened weight `[in, *kernel]`,
            as gathered by `calibrate(..., gather=["gram"])`.
        damping: Share of the mean of the diagonal, from 0 to 10^9. Larger values give the data less influence.
        tolerance: Largest share by which a row's objective may exceed its minimum, before rounding; 0 factorises every
            support. Without damping every support is factorised, too.
        rounded_to: Dtype that the weights will be stored in, such as `"bfloat16"`; values are rounded to it before the
            error is computed. By default the weight's dtype.
        threads: Number of torch threads; by default torch's setting.
        name: Name of the weight in error messages.
        on_progress: Called with (rows done, total rows); an exception in it stops the update.

    Returns:
        The updated weights, and the error of the output before and after the update.

    Raises:
        UpdateError: If an option is out of its range; if an operand is no dense array; if shapes or dtypes do not fit;
            if a value is not finite; if the largest value of an operand is so small or so large that errors under-
            or overflow in float64; if the Gram matrix is not symmetric; or if it is not damped, and singular on a row's
            support.
    """
    if not 0 <= tolerance < 1:
        raise UpdateError(f"tolerance={tolerance} must be at least 0 and below 1", name)
    operands = read(weight, gram, damping, name, rounded_to)
    kept = read_mask(mask, operands)
    returned_mask = mask if hasattr(mask, "shape") else operands.like_weight(kept)
    with update_threads(threads, name):
        return refit(operands, kept, returned_mask, tolerance=tolerance, on_progress=on_progress)


def refit(
    operands: Operands,
    mask: Tensor,
    returned_mask: Any,
    *,
    tolerance: float = TOLERANCE,
    scaled: ScaledSystem | None = None,
    start: Tensor | None = None,
    on_progress: OnProgress | None = None,
) -> Update:
    """Reconstruct a weight from operands that are checked and read already.

    Args:
        operands: Weight, Gram matrix and damping.
        mask: Bool `[out, inputs]`, on the weight's device.
        returned_mask: The same mask for the result, in the form in which the caller passed it.
        tolerance: As for `reconstruct`.
        scaled: `ScaledSystem.of(operands)`, if it is computed already.
        start: Weights `[out, inputs]` to start the iterations from; by default the masked ones.
        on_progress: As for `reconstruct`.
    """
    started = time.perf_counter()
    reconstruction = _Reconstruction(operands, mask, on_progress)
    to_factorise = np.ones(len(mask), bool)  # [rows], whether the row's support is factorised
    if tolerance > 0 and operands.diagonal_damping > 0:
        to_factorise = is_factorised(mask.cpu().numpy())
    if not to_factorise.all():
        iterated_rows = torch.from_numpy(np.flatnonzero(~to_factorise)).to(mask.device)
        scaled = ScaledSystem.of(operands) if scaled is None else scaled
        not_converged = reconstruction.iterate(iterated_rows, scaled, tolerance, start)
        to_factorise[not_converged] = True
    reconstruction.factorise(np.flatnonzero(to_factorise))
    stats = {
        "method": "reconstruct",
        "damping": operands.diagonal_damping,
        "tolerance": tolerance,
        "factorisations": reconstruction.factorisations,
        "iterations": reconstruction.iterations,
        "rows_as_they_were": reconstruction.rows_as_they_were,
        "update_s": time.perf_counter() - started,
        "device": str(mask.device),
    }
    errors = (reconstruction.after, reconstruction.before, reconstruction.energy)
    return Update(operands.like_weight(reconstruction.result), returned_mask, *errors, stats)


class _Reconstruction:
    """The rows that were reconstructed so far, and sums over them.

    Attributes:
        result: `[out, inputs]`, updated weights.
        before: Squared error of the output with the masked weights, rounded as the updated ones.
        after: Squared error of the output with the updated weights.
        energy: Squared norm of the original output.
        rows_as_they_were: Number of rows that keep their masked weights: the update does not decrease their error.
        factorisations: Number of supports that were factorised.
        iterations: Number of iterations of the slowest row.
    """

    def __init__(self, operands: Operands, mask: Tensor, on_progress: OnProgress | None) -> None:
        self._operands, self._mask, self._on_progress = operands, mask, on_progress
        self.result = torch.zeros_like(operands.weight)
        self.before = self.after = self.energy = 0.0
        self.rows_as_they_were = self.factorisations = self.iterations = self._rows_done = 0

    def iterate(self, rows: Tensor, scaled: ScaledSystem, tolerance: float, start: Tensor | None) -> list[int]:
        """Reconstruct rows by conjugate gradients; return the rows that did not converge, which are not stored."""
        not_converged: list[int] = []
        size = rows_at_once(self._mask)
        for strip_rows in torch.tensor_split(rows, list(range(size, len(rows), size))):
            strip = Strip.of(self._operands, self._mask, strip_rows)
            candidates = converge(strip, self._operands, scaled, tolerance, start)
            self.iterations = max(self.iterations, candidates.iterations)
            not_converged += strip_rows[~candidates.converged].tolist()
            self._round_and_store(strip, candidates.updated, candidates.error, candidates.converged)
        return not_converged

    def factorise(self, rows: npt.NDArray[np.int64]) -> None:
        """Reconstruct rows by Cholesky factorisations."""
        if len(rows) == 0:
            return
        for batch_of_positions in batches(self._mask.cpu().numpy()[rows]):
            # `batches` returns positions in `rows`; they are replaced by row numbers of the mask.
            batch = replace(batch_of_positions, rows=rows[batch_of_positions.rows])
            strip = Strip.of(self._operands, self._mask, torch.from_numpy(batch.rows.ravel()).to(self._mask.device))
            shift = factorised_shift(self._operands, strip.kept, strip.correlation, batch)
            self.factorisations += len(batch.rows)
            self._round_and_store(strip, shift.add_(strip.masked), None, torch.ones_like(strip.kept[:, 0]))

    def _round_and_store(self, strip: Strip, candidate: Tensor, error: Tensor | None, is_chosen: Tensor) -> None:
        """Round candidates, and store the chosen rows: candidates that decrease the row's error, else masked weights.

        Masked weights are rounded, too, so that the error is that of the weights that will be stored.

        Args:
            strip: The rows.
            candidate: Updated weights, not rounded.
            error: Squared error of the output with the candidates, `[rows]`; None if it is not computed yet.
            is_chosen: Bool `[rows of the strip]`, whether the row is stored.
        """
        operands = self._operands
        updated, updated_error = self._rounded(strip, candidate, error)
        masked, masked_error = self._rounded(strip, strip.masked, strip.masked_error)
        is_better = updated_error < masked_error  # False for NaN, too
        self.before += float(masked_error[is_chosen].sum())
        self.after += float(torch.where(is_better, updated_error, masked_error)[is_chosen].sum())
        self.energy += float(operands.energy[strip.rows[is_chosen]].sum())
        self.rows_as_they_were += int((is_chosen & ~is_better).sum())
        final = torch.where(is_better[:, None], updated, masked)
        self.result[strip.rows[is_chosen]] = final[is_chosen]
        self._rows_done += int(is_chosen.sum())
        if self._on_progress is not None:
            self._on_progress(self._rows_done, len(self._mask))

    def _rounded(self, strip: Strip, weights: Tensor, error: Tensor | None) -> tuple[Tensor, Tensor]:
        """Round weights to the dtype that they will be stored in; return them, and the squared error of the output.

        `error` is that of the weights before they are rounded; None if it is not computed yet.
        """
        operands = self._operands
        rounded = weights.to(operands.stored_dtype).to(operands.weight.dtype)
        if error is None or not torch.equal(rounded.double(), weights):
            change = strip.dense - rounded.double()
            error = squared_norms(change, change @ operands.gram)
        return rounded, error
