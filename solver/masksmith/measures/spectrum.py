"""Singular values of a masked layer; a mask that makes a layer singular impairs training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._tensors import MatrixReader, read_dense
from masksmith.layouts import Layout
from masksmith.patterns import matrix_shape


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Smallest, mean and largest singular value of a masked layer, over all its matrices."""

    least: float
    mean: float
    most: float


def spectrum(weight: Any, mask: Any = None, layout: Layout | None = None) -> Spectrum:
    """Return the smallest, mean and largest singular value of a masked layer; of several matrices, over all of them.

    Takes `O(rows * cols * min(rows, cols))` operations in float64 for each matrix, and holds float64 copies of one
    matrix in memory.

    Args:
        weight: Array or tensor; `[out, in, *kernel]` if there is no layout.
        mask: Bool array or tensor of the weight's shape; by default all entries are kept.
        layout: How the tensor is made of matrices; by default it is one matrix `[out, prod(kernel) * in]`.

    Raises:
        ScoresError: If mask and weight differ in shape, or a kept entry of the weight is NaN or infinite.
        LayoutError: If a shape does not match the layout.
    """
    if layout is not None:
        weight, mask = read_dense(weight, "weight"), None if mask is None else read_dense(mask, "mask")
        if mask is not None:
            _check_shape(mask.shape, weight.shape)
        masks = [None] * layout.count(weight.shape) if mask is None else layout.matrices(mask)
        spectra = [spectrum(*pair) for pair in zip(layout.matrices(weight), masks, strict=True)]
        mean = sum(each.mean for each in spectra) / len(spectra)
        return Spectrum(min(each.least for each in spectra), mean, max(each.most for each in spectra))
    weight_reader = MatrixReader(weight, name="weight")
    rows, _ = matrix_shape(weight_reader.shape)
    matrix = weight_reader.rows(0, rows).astype(np.float64)
    if mask is not None:
        mask_reader = MatrixReader(mask, name="mask")
        _check_shape(mask_reader.shape, weight_reader.shape)
        matrix = np.where(mask_reader.rows(0, rows) != 0, matrix, 0.0)
    if not np.isfinite(matrix).all():
        raise ScoresError("NaN or infinity in a kept entry, so it has no singular values", name="weight")
    values = np.linalg.svd(matrix, compute_uv=False)
    return Spectrum(float(values.min()), float(values.mean()), float(values.max()))


def _check_shape(mask_shape: Sequence[int], weight_shape: Sequence[int]) -> None:
    if tuple(mask_shape) != tuple(weight_shape):
        raise ScoresError(f"shape {list(mask_shape)} differs from the weight's {list(weight_shape)}", name="mask")
