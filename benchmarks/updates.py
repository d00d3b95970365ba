"""Time weight updates and refined masks against SparseGPT and ALPS on two layers of MiniLM, on one thread.

    python benchmarks/updates.py [--rounds 3] [--pattern 2:4] [--write]

SparseGPT and ALPS are implemented in `peers/` from their papers; the error of each must be within 2 % of the error of
its authors' code on the first layer. All methods run in turn within each round; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from measuring import ROOT, interleave, ratio, stamp, table
from peers.alps import alps
from peers.selection import selection
from peers.sparsegpt import sparsegpt

import masksmith as ms
from masksmith.updates.reconstruct import TOLERANCE

sys.path.insert(0, str(ROOT / "examples"))
import minilm

LAYERS = ("encoder.layer.3.intermediate.dense.weight", "encoder.layer.3.output.dense.weight")
PUBLISHED = {"SparseGPT": 0.0230, "ALPS": 0.01306}
"""Errors of the authors' own code on the first layer at 2:4."""
PASSAGES, BATCH = 256, 32
WIDTH, FACTORISED_ROWS = 4096, 128
"""Inputs and outputs of the wide layer, and the number of its rows that are factorised."""


def relative_error(updated: torch.Tensor, weight: torch.Tensor, gram: torch.Tensor) -> float:
    """Squared error of the output as a share of the squared norm of the dense output."""
    change, dense = (updated - weight).double(), weight.double()
    return float(((change @ gram) * change).sum() / ((dense @ gram) * dense).sum())


def methods(weight: torch.Tensor, calibration: Any, pattern: ms.NM) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the methods by name; each returns updated weights."""
    gram, mask = calibration.gram, ms.solve(ms.wanda(weight, calibration.norms), pattern).mask
    gram_tensor = torch.as_tensor(gram)
    transposable = ms.NM(8, 16, transposable=True)
    transposable_mask = ms.solve(ms.wanda(weight, calibration.norms), transposable).mask
    return {
        "reconstruct, factorised": lambda: ms.reconstruct(weight, mask, gram, tolerance=0.0).weight,
        "reconstruct": lambda: ms.reconstruct(weight, mask, gram).weight,
        "admm": lambda: ms.admm(weight, gram, pattern).weight,
        "ALPS": lambda: alps(weight, gram_tensor, selection(str(pattern))),
        "SparseGPT": lambda: sparsegpt(weight, gram_tensor, selection(str(pattern))),
        "Wanda": lambda: weight * mask,
        "refine": lambda: weight * ms.refine(weight, mask, gram, pattern).mask,
        f"Wanda, {transposable}": lambda: weight * transposable_mask,
        f"refine, {transposable}": lambda: weight * ms.refine(weight, transposable_mask, gram, transposable).mask,
    }


def wide_layer(pattern: ms.NM, rounds: int) -> str:
    """Return how much faster `reconstruct` is than factorising on a wide layer, and how close to its error.

    The activations are random, with standard deviations that fall with the root of the direction's number. The time of
    factorising is that of a few rows, times the number of rows: each row has a support of its own.
    """
    generator = torch.Generator().manual_seed(0)
    deviations = torch.arange(1, WIDTH + 1, dtype=torch.float32)[:, None] ** -0.5
    mixing = torch.randn(WIDTH, WIDTH, generator=generator) * deviations
    activations = torch.randn(2 * WIDTH, WIDTH, generator=generator) @ mixing
    weight = torch.randn(WIDTH, WIDTH, generator=generator)
    gram = (activations.T @ activations).double()
    mask = ms.solve(ms.wanda(weight, gram.diagonal().sqrt()), pattern).mask
    first = slice(FACTORISED_ROWS)
    updates: dict[str, ms.Update] = {}

    def run(label: str, rows: slice, tolerance: float) -> Callable[[], None]:
        return lambda: updates.update({label: ms.reconstruct(weight[rows], mask[rows], gram, tolerance=tolerance)})

    seconds = interleave(
        {
            "factorised": run("factorised", first, 0.0),
            "same rows": run("same rows", first, TOLERANCE),
            "iterated": run("iterated", slice(None), TOLERANCE),
        },
        rounds,
    )
    faster = ratio(seconds["factorised"], seconds["iterated"]) * WIDTH / FACTORISED_ROWS
    excess = updates["same rows"].error / updates["factorised"].error - 1
    return (
        f"On a layer of {WIDTH}x{WIDTH} (random activations; {FACTORISED_ROWS} of its rows are factorised) it is "
        f"{faster:.0f} times as fast, and its error is {100 * excess:.2f} % larger"
    )


def measure(
    name: str, weight: torch.Tensor, calibration: Any, held_out: Any, pattern: ms.NM, rounds: int
) -> tuple[list[list[str]], float]:
    """Return a row for each method on one layer, with errors on the calibration passages and on held-out ones.

    The second value is the time of factorising over that of `reconstruct`.
    """
    runs = methods(weight, calibration, pattern)
    seconds = interleave(runs, rounds)
    rows = []
    for method, run in runs.items():
        updated = run()
        errors = [relative_error(updated, weight, torch.as_tensor(part.gram)) for part in (calibration, held_out)]
        if name == LAYERS[0] and str(pattern) == "2:4" and method in PUBLISHED:
            assert abs(errors[0] / PUBLISHED[method] - 1) < 0.02, (method, errors[0])
        factor = ratio(seconds[method], seconds["ALPS"])
        time = f"{statistics.median(seconds[method]):.2f} s", f"{factor:.2f}"
        shape = "x".join(map(str, weight.shape))
        rows.append([f"{shape}, {method}", f"{errors[0]:.5f} / {errors[1]:.5f}", *time])
        print(*rows[-1], flush=True)
    return rows, ratio(seconds["reconstruct, factorised"], seconds["reconstruct"])


def bounds(weight: torch.Tensor, calibration: Any, pattern: ms.NM) -> str:
    """Return the shape of a layer, and the error of its refined mask as a multiple of the lower bound."""
    mask = ms.solve(ms.wanda(weight, calibration.norms), pattern).mask
    refined = ms.refine(weight, mask, calibration.gram, pattern)
    return f"{'x'.join(map(str, weight.shape))}: {refined.looseness:.3g}"


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--pattern", default="2:4", help="a plain pattern")
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    pattern = ms.parse(arguments.pattern)
    assert isinstance(pattern, ms.NM)
    model = minilm.load()
    passages, held_out_passages = minilm.passages(PASSAGES), minilm.passages(PASSAGES // 2, held_out=True)
    calibration, held_out = (
        ms.calibrate(model, texts.split(BATCH), gather=("norms", "gram"), layers=LAYERS)
        for texts in (passages, held_out_passages)
    )
    state, rows, faster = model.state_dict(), [], []
    for name in LAYERS:
        of_layer, factor = measure(name, state[name], calibration[name], held_out[name], pattern, arguments.rounds)
        rows += of_layer
        faster.append(f"{factor:.1f}")
    bound_ratios = "; ".join(bounds(state[name], calibration[name], pattern) for name in LAYERS)
    text = (
        f"# Weight updates and refined masks\n\n{stamp()}\n\nTwo layers of MiniLM at {pattern}, one thread, "
        f"{PASSAGES} passages of 128 tokens to calibrate with, damping 0.01. Squared error of the output as a share of "
        "the output's square, calibration / held out; median seconds, and as a multiple of ALPS's in the same round. "
        "`reconstruct` and `refine` start from Wanda's mask. SparseGPT and ALPS are implemented in `benchmarks/peers` "
        f"from their papers.\n\n{table(('layer, method', 'error', 'time', 'of ALPS'), rows)}\n\n"
        f"`reconstruct` is {' and '.join(faster)} times as fast as factorising each support. "
        f"{wide_layer(pattern, rounds=1)}.\n\n"
        f"The error of the refined {pattern} mask as a multiple of its lower bound: {bound_ratios}.\n"
    )
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "updates.md").write_text(text)


if __name__ == "__main__":
    main()
