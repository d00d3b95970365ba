"""masksmith's own kernel for CPUs: n entries of every group of m, gathered (`masksmith.kernels.sparse_product`)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from masksmith.benchmark.declaration import Declaration, Support
from masksmith.benchmark.kernel import Operand, Packed, torch_obstacle

if TYPE_CHECKING:
    import torch

LANES = 16
WORTH_A_THREAD = 2**21
"""Multiplications below which waking another thread costs more than it helps."""


class Gather:
    """Groups along the rows of A; every group stores n values and one byte for the place of each."""

    declaration = Declaration(
        "nm-gather",
        "masksmith's n:m kernel for CPUs: one byte of index an entry, the batch in vector lanes",
        {"cpu": Support({"float32": (1, 1), "float64": (1, 1)})},
        "n:m",
        curve=("12:16", "8:16", "4:16", "2:16", "1:16", "1:32"),
    )

    def obstacle(self, device: str) -> str | None:
        """It needs torch, and numba, and numba compiling."""
        try:
            from masksmith.kernels.jit import COMPILED
        except ImportError:
            return "it needs numba: pip install 'masksmith[solver]'"
        return torch_obstacle() if COMPILED else "numba's compiler is switched off (NUMBA_DISABLE_JIT)"

    def pack(self, operand: Operand) -> Packed:
        """Sort every group's entries to the front, and give the rows to threads."""
        import torch

        from masksmith.kernels.sparse_product import FEW, gather_dots, gather_rows

        assert operand.budget is not None
        n, m = operand.budget
        rows = operand.matrix.shape[0]
        values, places = pack_groups(operand.matrix.numpy(), n, m)
        pieces = _pieces(values, operand.sample.shape[0], operand.threads)
        pool = ThreadPoolExecutor(len(pieces) - 1, "gather") if len(pieces) > 1 else None

        def run(x: torch.Tensor) -> torch.Tensor:
            y = torch.empty((x.shape[0], rows), dtype=x.dtype)
            kernel = gather_dots if x.shape[0] <= FEW else gather_rows
            before, after = x.numpy(), y.numpy()
            others = [pool.submit(kernel, values, places, n, m, before, after, *piece) for piece in pieces[1:] if pool]
            kernel(values, places, n, m, before, after, *pieces[0])
            for other in others:
                other.result()
            return y

        return Packed({"gather": run}, values.nbytes + places.nbytes, {"threads": str(len(pieces))})


def pack_groups(
    matrix: npt.NDArray[np.floating], n: int, m: int
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.uint8]]:
    """Give the non-zeros of every group and their places, `[rows, groups * n]`, rows padded to whole vectors.

    Groups that hold fewer than n are filled with entries that are zero anyway.
    """
    rows, cols = matrix.shape
    groups = matrix.reshape(rows, cols // m, m)
    front = np.argsort(groups == 0, axis=-1, kind="stable")[..., :n]
    shape = (-(-rows // LANES) * LANES, cols // m * n)
    values, places = np.zeros(shape, matrix.dtype), np.zeros(shape, np.uint8)
    values[:rows] = np.take_along_axis(groups, front, -1).reshape(rows, -1)
    places[:rows] = front.reshape(rows, -1)
    return values, places


def _pieces(values: npt.NDArray[np.floating], batch: int, threads: int) -> list[tuple[int, int]]:
    """Cut the rows into one piece a thread, of whole vectors, as far as threads are worth it."""
    strips = values.shape[0] // LANES
    count = max(1, min(threads, strips, values.size * batch // WORTH_A_THREAD))
    edges = [strips * k // count * LANES for k in range(count + 1)]
    return list(pairwise(edges))
