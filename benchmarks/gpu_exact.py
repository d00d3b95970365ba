"""Parts of `gpu_check.py` for the exact solver: compare masks and duals with the CPU's, and times with peers."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from measuring import ROOT, stamp, table
from peers.masks import projections

import masksmith as ms

sys.path.insert(0, str(ROOT / "tests"))
from support.strategies import SCORES, column_scales, scores_of

CHECKED = (
    "transposable 1:4", "transposable 2:4", "transposable <=2:4", "transposable 4:8", "transposable <=4:8",
    "transposable 8:16", "transposable <=8:16", "transposable 5:12", "transposable 16:32", "transposable 32:64",
)  # fmt: skip
TIMED = ("transposable 2:4", "transposable 4:8", "transposable 8:16", "transposable 4:16", "transposable 16:32")
SIZES = (512, 1024, 2048, 4096, 8192, 16384)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ROUNDS = 7
PEERS_SIZE = 4096
"""Rows and columns of the layers on which other solvers are timed as well."""
COPY_SIZE = 2**28
"""Entries that are copied to measure the bandwidth."""


def bits(device: str, out: Path, *, quick: bool) -> str:
    """Compare masks, statuses and duals with the CPU's on every generator, with a seed that the tests do not use.

    Raises:
        RuntimeError: If they differ, the device was not used, or it is the CPU itself.
    """
    if device == "cpu":
        raise RuntimeError("the device was not used: it is the CPU, with which it is to be compared")
    seed, tiles = time.time_ns() % 2**31, 0
    for pattern in CHECKED[::3] if quick else CHECKED:
        tile = ms.parse(pattern).tile
        cases = {name: scores_of(name, seed, tile, 8, 32) for name in SCORES}
        rng = np.random.default_rng(seed)
        cases["column scales"] = column_scales(rng, (8 * tile.rows, 32 * tile.cols), tile).astype(np.float32)
        for name, scores in cases.items():
            for dtype in DTYPES:
                converted = torch.from_numpy(scores).to(dtype)
                if bool(torch.isfinite(converted).all()):
                    _compare(converted, pattern, device, f"{pattern}, {name}, {dtype}, seed {seed}")
                    tiles += 8 * 32
    (out / "exact_bits.txt").write_text(f"{tiles} tiles alike, seed {seed}\n{stamp()}\n")
    return f"{tiles} tiles alike, seed {seed}"


def _compare(scores: torch.Tensor, pattern: str, device: str, what: str) -> None:
    """Check that mask, status and duals are equal on the device and on the CPU; `what` names the case.

    Raises:
        RuntimeError: If they differ, or the device was not used.
    """
    try:
        on_device = _solve_on_device(scores.to(device), pattern, keep_duals=True)
    except RuntimeError as error:
        raise RuntimeError(f"{what}: {error}") from None
    on_cpu = ms.solve(scores, pattern, ms.Exact(device="cpu"), keep_duals=True)
    if not torch.equal(on_device.mask.cpu(), on_cpu.mask):
        raise RuntimeError(f"{what}: {int((on_device.mask.cpu() != on_cpu.mask).sum())} entries differ")
    if on_device.status != on_cpu.status:
        raise RuntimeError(f"{what}: {on_device.status} on the device, {on_cpu.status} on the CPU")
    assert on_device.duals is not None
    assert on_cpu.duals is not None
    for side, ours, theirs in zip(("row", "column"), on_device.duals, on_cpu.duals, strict=True):
        if not np.array_equal(ours, theirs):
            raise RuntimeError(f"{what}: {int((ours != theirs).sum())} {side} duals differ")


def times(device: str, out: Path, *, quick: bool) -> str:
    """Time whole solves of bfloat16 and float32 layers, as a share of the measured copy bandwidth.

    Raises:
        RuntimeError: If the device solved none of them.
    """
    bandwidth, rows, reasons = _bandwidth(device), [], []
    for pattern in TIMED:
        for size in SIZES[:3] if quick else SIZES:
            for dtype in (torch.float32, torch.bfloat16):
                scores = torch.rand(size, size, device=device).to(dtype)
                row = [pattern, f"{size}^2", str(dtype).removeprefix("torch.")]
                try:
                    seconds = _median(lambda: _solve_on_device(scores, pattern), device)  # noqa: B023 - called at once
                except RuntimeError as error:
                    reasons.append(str(error))
                    rows.append([*row, _cannot_run(error), ""])
                    continue
                # Minimum traffic: scores once, and a mask of one byte per entry.
                share = scores.numel() * (scores.element_size() + 1) / seconds / bandwidth
                rows.append([*row, f"{seconds * 1e3:.2f}", f"{share:.1%}"])
    if len(reasons) == len(rows):
        raise RuntimeError(reasons[0])
    rows += [["copy", "", "", "", f"{bandwidth / 1e12:.2f} TB/s"]]
    head = ["pattern", "weights", "dtype", "ms", "of copy bandwidth"]
    text = f"# The exact solver on a GPU\n\n{torch.cuda.get_device_name(device)}. {stamp()}\n\n{table(head, rows)}\n"
    (out / "exact_times.md").write_text(text + _peers(device, quick=quick))
    return f"{len(rows) - 1 - len(reasons)} times, copies at {bandwidth / 1e12:.2f} TB/s"


def _solve_on_device(scores: torch.Tensor, pattern: str, *, keep_duals: bool = False) -> ms.Solution:
    """Solve scores on their device.

    Raises:
        RuntimeError: If the CPU solved them instead: its result or time would be called the device's.
    """
    solution = ms.solve(scores, pattern, ms.Exact(), keep_duals=keep_duals)
    if "fallback" in solution.stats:
        raise RuntimeError(f"the device was not used: {solution.stats['fallback']}")
    return solution


def _peers(device: str, *, quick: bool) -> str:
    """Time other solvers for the same masks on the same device."""
    size, rows = PEERS_SIZE // 4 if quick else PEERS_SIZE, []
    for pattern, n, m in (("transposable 2:4", 2, 4), ("transposable 8:16", 8, 16), ("transposable 16:32", 16, 32)):
        scores = torch.rand(size, size, device=device)
        tiles = scores.reshape(size // m, m, size // m, m).transpose(1, 2).reshape(-1, m, m).contiguous()
        runs: dict[str, Callable[[], object]] = {
            "exact": lambda: _solve_on_device(scores, pattern),  # noqa: B023
            "300 projections (torch)": lambda: projections(tiles, n),  # noqa: B023
            "greedy (torch, panels from the host)": lambda: ms.solve(scores, pattern, ms.Greedy(device=device)),  # noqa: B023
        }
        if m == 4:
            every = torch.tensor(_all_masks(), device=device, dtype=torch.float32)
            runs["90 patterns (matmul)"] = lambda: (tiles.reshape(-1, 16) @ every.T).argmax(1)  # noqa: B023
            runs["torch's greedy tile kernel (float16)"] = lambda: torch._sparse_semi_structured_tile(
                scores.half(),  # noqa: B023
                algorithm="largest_abs_values_greedy",
                use_cutlass=False,
            )
        rows += [[pattern, name, _milliseconds(run, device)] for name, run in runs.items()]
    return f"\n## Other solvers, {size}^2 float32\n\n{table(['pattern', 'solver', 'ms'], rows)}\n"


def _all_masks() -> list[list[int]]:
    """Return the 90 masks of transposable 2:4, each as 16 entries."""
    rows = [[(bits >> column) & 1 for column in range(4)] for bits in range(16) if bits.bit_count() == 2]
    tiles = product(rows, repeat=4)
    return [
        [entry for row in tile for entry in row]
        for tile in tiles
        if all(sum(row[column] for row in tile) == 2 for column in range(4))
    ]


def _milliseconds(run: Callable[[], object], device: str) -> str:
    """Return the median milliseconds as text, or why the solver cannot run."""
    try:
        return f"{_median(run, device) * 1e3:.2f}"
    except (RuntimeError, ms.MasksmithError) as error:
        return _cannot_run(error)


def _cannot_run(error: Exception) -> str:
    return f"cannot run: {str(error).splitlines()[0][:80]}"


def _bandwidth(device: str) -> float:
    """Bytes that a copy of 1 GiB reads and writes in a second."""
    source = torch.empty(COPY_SIZE, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / _median(lambda: target.copy_(source), device)


def _median(run: Callable[[], object], device: str) -> float:
    """Median seconds by CUDA events, after two untimed runs; the time of the host is included, as for users."""
    seconds = []
    for number in range(ROUNDS + 2):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        first.record()
        run()
        last.record()
        torch.cuda.synchronize(device)
        if number > 1:
            seconds.append(first.elapsed_time(last) / 1e3)
    return statistics.median(seconds)
