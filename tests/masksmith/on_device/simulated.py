"""Solves the cases of a file in numba's CUDA simulator and writes masks and proofs; run by test_simulated.py.

The simulator runs plain Python, a thread of the host for each thread of the device, so it needs a process of its own.
"""

from __future__ import annotations

import json
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import masksmith as ms


def earlier(mask: np.ndarray, u: np.ndarray, v: np.ndarray) -> ms.Solution:
    """Make the solution of an earlier solve, as far as a warm start looks at it."""
    return replace(ms.solve(np.ones((1, 1)), "1:1"), mask=mask, duals=(u, v))


def answer(case: dict[str, object], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Solve one case."""
    arguments = {word: arrays[key] for word, key in case["arrays"].items()}  # type: ignore[attr-defined]
    scores = arguments.pop("scores")
    if case["bfloat16"]:
        scores = torch.from_numpy(scores).bfloat16()
    if "u" in arguments:
        arguments["warm_start"] = earlier(arguments.pop("start"), arguments.pop("u"), arguments.pop("v"))
    pattern = ms.parse(case["pattern"], ragged=case["ragged"])
    try:
        solution = ms.solve(
            scores, pattern, ms.Exact(device="cuda"), keep_duals=True, hysteresis=case["hysteresis"], **arguments
        )
    except ms.MasksmithError as error:
        return {"error": np.array(str(error))}
    assert solution.stats["device"] == "cuda (simulated)", solution.stats
    emitted = {} if solution.pruned is None else {"pruned": solution.pruned, "packed": solution.packed}
    return emitted | {
        "mask": np.asarray(solution.mask),
        "status": np.array(str(solution.status)),
        "stats": np.array(sorted(solution.stats)),
        "objectives": solution.tile_objectives,
        "bounds": solution.tile_bounds,
        "total": np.array(solution.total_score),
        "sums": np.array([solution.objective, solution.upper_bound, solution.unshifted_objective, solution.kept]),
        "row_duals": solution.duals[0],
        "col_duals": solution.duals[1],
    }


def lock_shared_arrays() -> None:
    """Let one thread at a time make a shared array: the simulator itself lets two make the same one."""
    from numba.cuda.simulator.kernelapi import FakeCUDAShared
    from numba.np.numpy_support import as_dtype

    lock = threading.Lock()

    def array(self, shape, dtype):
        line = sys._getframe(1).f_lineno
        with lock:
            if line not in self._allocations:
                self._allocations[line] = np.empty(shape, as_dtype(dtype))
            return self._allocations[line]

    FakeCUDAShared.array = array


def main(folder: Path) -> None:
    """Answer every case of `cases.json`, whose arrays are in `arrays.npz`."""
    # Registers wrap around without a word; numpy says so each time.
    warnings.simplefilter("ignore", RuntimeWarning)
    lock_shared_arrays()
    # The simulator polls its threads without pause; they must get their turn all the same.
    sys.setswitchinterval(1e-5)
    cases, arrays = json.loads((folder / "cases.json").read_text()), dict(np.load(folder / "arrays.npz"))
    answers = {}
    for case in cases:
        for key, value in answer(case, arrays).items():
            answers[f"{case['name']}/{key}"] = value
    np.savez(folder / "answers.npz", **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
