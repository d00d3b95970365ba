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

STRIP_ROWS = 16
"""Rows of A for which the kernel writes results at a time; the number of packed rows is padded to a multiple."""
MIN_THREAD_WORK = 2**21
"""Multiplications per thread below which another thread saves no time."""


class Gather:
    """Kernel for n:m groups along the rows of A; a group stores n values and one byte of position for each."""

    declaration = Declaration(
        "nm-gather",
        "masksmith's n:m kernel for CPUs: one byte of index per entry, vectorised over the batch",
        {"cpu": Support({"float32": (1, 1), "float64": (1, 1)})},
        "n:m",
        curve=("12:16", "8:16", "4:16", "2:16", "1:16", "1:32"),
    )

    def obstacle(self, device: str) -> str | None:
        """Return why the kernel cannot run, or None if it can. It needs torch, and numba with compilation enabled."""
        try:
            from masksmith.kernels.jit import COMPILED
        except ImportError:
            return "it needs numba: pip install 'masksmith[solver]'"
        return torch_obstacle() if COMPILED else "numba's compiler is switched off (NUMBA_DISABLE_JIT)"

    def pack(self, operand: Operand) -> Packed:
        """Pack the non-zeros of every group, and divide the rows among threads."""
        import torch

        from masksmith.kernels.sparse_product import MAX_DOTS_BATCH, gather_dots, gather_rows

        assert operand.budget is not None
        n, m = operand.budget
        rows = operand.matrix.shape[0]
        values, places = pack_groups(operand.matrix.numpy(), n, m)
        row_ranges = _row_ranges(values, operand.sample.shape[0], operand.threads)
        pool = ThreadPoolExecutor(len(row_ranges) - 1, "gather") if len(row_ranges) > 1 else None

        def run(x: torch.Tensor) -> torch.Tensor:
            y = torch.empty((x.shape[0], rows), dtype=x.dtype)
            kernel = gather_dots if x.shape[0] <= MAX_DOTS_BATCH else gather_rows
            arguments = (values, places, n, m, x.numpy(), y.numpy())
            futures = []
            if pool is not None:
                futures = [pool.submit(kernel, *arguments, *row_range) for row_range in row_ranges[1:]]
            kernel(*arguments, *row_ranges[0])
            for future in futures:
                future.result()
            return y

        return Packed({"gather": run}, values.nbytes + places.nbytes, {"threads": str(len(row_ranges))})


def pack_groups(
    matrix: npt.NDArray[np.floating], n: int, m: int
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.uint8]]:
    """Return the non-zeros of every group and their positions in it, both `[padded rows, groups * n]`.

    In place of missing non-zeros, a group has zeros. Rows of zeros are appended until the number of rows is a multiple
    of `STRIP_ROWS`.
    """
    rows, cols = matrix.shape
    groups = matrix.reshape(rows, cols // m, m)
    positions = np.argsort(groups == 0, axis=-1, kind="stable")[..., :n]
    shape = (-(-rows // STRIP_ROWS) * STRIP_ROWS, cols // m * n)
    values, places = np.zeros(shape, matrix.dtype), np.zeros(shape, np.uint8)
    values[:rows] = np.take_along_axis(groups, positions, -1).reshape(rows, -1)
    places[:rows] = positions.reshape(rows, -1)
    return values, places


def _row_ranges(values: npt.NDArray[np.floating], batch: int, threads: int) -> list[tuple[int, int]]:
    """Divide the rows into ranges of whole strips, one per thread; threads that would have too little work get none."""
    strips = values.shape[0] // STRIP_ROWS
    count = max(1, min(threads, strips, values.size * batch // MIN_THREAD_WORK))
    edges = [strips * k // count * STRIP_ROWS for k in range(count + 1)]
    return list(pairwise(edges))
