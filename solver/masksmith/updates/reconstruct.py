"""Reconstruction: the kept weights of each row are set to the least-squares optimum on its support."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from masksmith._errors import UpdateError

from .operands import Operands, read, read_mask
from .supports import Batch, batches
from .threads import torch_threads
from .update import Update

OnProgress = Callable[[int, int], None]
Tensor = torch.Tensor


def reconstruct(
    weight: Any,
    mask: Any,
    gram: Any,
    *,
    damping: float = 0.01,
    rounded_to: str | None = None,
    threads: int | None = None,
    name: str | None = None,
    on_progress: OnProgress | None = None,
) -> Update:
    """Set the kept weights to the values that change the layer's output least; AdaPrune approximates them with Adam.

    With `G = X^T X`, for each row `w` with its mask `s`, the result is

        argmin over v with v = s * v of  (v - w)^T G (v - w) + damping * mean(diag(G)) * ||v - s * w||^2.

    The damping is centred on the masked weights, so the error on the calibration data, `E(v) = (v - w)^T G (v - w)`,
    never increases: the minimiser's objective is at most that of `s * w`, whose damping term is 0, hence `E(v) <= E(v)
    + damping term <= E(s * w)`. This holds under rounding, too: a row whose rounded values do not decrease `E`, in
    float64, keeps its masked weights. On the support S, with P the dropped entries, `v_S = w_S + (G_SS + c I)^-1 G_SP
    w_P`; rows with equal supports share a Cholesky factor.

    Args:
        weight: `[out, in, *kernel]`, numpy or torch, float64 to bfloat16.
        mask: Bool, the weight's shape, True = kept; any mask.
        gram: `X^T X` of the layer's inputs, `[inputs, inputs]`, inputs in the weight's own order (kernels flattened),
            as gathered by `calibrate(..., gather=["gram"])`.
        damping: Share of the mean diagonal, at least 0. Larger values give the calibration data less influence.
        rounded_to: Dtype that the weights will be stored in, such as `"bfloat16"`; values are rounded to it before the
            error is computed. By default the weight's own dtype.
        threads: Number of torch threads; by default torch's setting.
        name: Name of the weight in error messages.
        on_progress: Called with (rows done, total rows); an exception in it stops the update.

    Returns:
        The weights, and the output's error before and after.

    Raises:
        UpdateError: If shapes or dtypes do not fit, a value is not finite, the Gram matrix is not symmetric, or it is
            singular on a row's support and not damped.
    """
    operands = read(weight, gram, damping, name, rounded_to)
    with torch_threads(threads):
        return refit(operands, read_mask(mask, operands), mask, on_progress)


def refit(operands: Operands, mask: Tensor, returned_mask: Any, on_progress: OnProgress | None = None) -> Update:
    """Reconstruct checked operands on a mask `[out, inputs]`; the result's `mask` is `returned_mask`."""
    started = time.perf_counter()
    result = torch.zeros_like(operands.weight)
    errors = _Errors()
    factored = done = 0
    for batch in batches(mask.cpu().numpy()):
        rows = torch.from_numpy(batch.rows.ravel()).to(mask.device)
        result[rows] = _refit_rows(operands, mask, rows, batch, errors)
        factored, done = factored + len(batch.rows), done + len(rows)
        if on_progress is not None:
            on_progress(done, len(mask))
    stats = {
        "method": "reconstruct",
        "damping": operands.damping,
        "factorisations": factored,
        "rows_as_they_were": errors.unmoved,
        "update_s": time.perf_counter() - started,
        "device": str(mask.device),
    }
    updated = operands.like_weight(result)
    return Update(updated, returned_mask, errors.after, errors.before, errors.energy, stats)


@dataclass
class _Errors:
    """Sums over rows: squared errors before and after, output energy, and number of rows that were not changed."""

    before: float = 0.0
    after: float = 0.0
    energy: float = 0.0
    unmoved: int = 0


def _refit_rows(operands: Operands, mask: Tensor, rows: Tensor, batch: Batch, errors: _Errors) -> Tensor:
    dense, kept = operands.weight[rows].double(), mask[rows]
    dropped = dense.masked_fill(kept, 0)
    correlation = dropped @ operands.gram  # [rows, inputs]: dropped weights' output times inputs
    masked = dense - dropped
    updated = (masked + _shift(operands, kept, correlation, batch)).to(operands.stored).to(operands.weight.dtype)
    before, after = _squared(dropped, operands.gram), _squared(dense - updated.double(), operands.gram)
    better = after < before  # False for NaN, too
    errors.before += float(before.sum())
    errors.after += float(torch.where(better, after, before).sum())
    errors.energy += float(_squared(dense, operands.gram).sum())
    errors.unmoved += int((~better).sum())
    return torch.where(better[:, None], updated, masked.to(updated.dtype))


def _shift(operands: Operands, kept: Tensor, correlation: Tensor, batch: Batch) -> Tensor:
    """Solve `(G_SS + c I) d = (G w_P)_S` for all rows of a batch; shorter supports are padded with the identity."""
    supports, each = batch.rows.shape
    firsts = kept.view(supports, each, -1)[:, 0]
    places = firsts.int().argsort(dim=1, descending=True, stable=True)[:, : batch.kept]  # [supports, kept]
    real = firsts.gather(1, places)
    system = operands.gram[places[:, :, None], places[:, None, :]]
    if not bool(real.all()):
        system.mul_(real[:, :, None]).mul_(real[:, None, :])
    system.diagonal(dim1=1, dim2=2).add_(torch.where(real, operands.damping, 1.0))
    factor, fault = torch.linalg.cholesky_ex(system)
    if bool(fault.any()):
        row = int(batch.rows[int(fault.argmax()), 0])
        advice = "calibrate with more samples, or damp more"
        raise UpdateError(f"gram is not positive definite on the support of a row; {advice}", operands.name, row)
    spread = places[:, None, :].expand(-1, each, -1)  # [supports, each, kept]
    right_side = correlation.view(supports, each, -1).gather(2, spread) * real[:, None, :]
    solution = torch.cholesky_solve(right_side.mT, factor).mT * real[:, None, :]
    return torch.zeros_like(correlation).view(supports, each, -1).scatter_(2, spread, solution).view_as(correlation)


def _squared(rows: Tensor, gram: Tensor) -> Tensor:
    return ((rows @ gram) * rows).sum(1)
