"""Measure by how much weight updates reduce the output error of a transformer's layers, on calibration and other text.

    python benchmarks/reconstruction.py [--depth 6] [--patterns 2:4 ...] [--write]

MiniLM reads passages of 128 tokens of the Python language reference; each layer's Gram matrix is gathered from the
dense model. For the first table each layer is masked separately; for the last table all layers are masked at once, and
the embeddings of passages are compared with those of the dense model.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from measuring import ROOT, stamp, table
from torch.nn import functional

import masksmith as ms

sys.path.insert(0, str(ROOT / "examples"))
import minilm

METHODS = ("magnitude", "Wanda", "magnitude, reconstructed", "Wanda, reconstructed", "ADMM")
PASSAGES, HELD_OUT, BATCH = 256, 128, 32


def gather(model: minilm.MiniLM, passages: torch.Tensor, layers: list[str]) -> ms.Calibration:
    """Calibrate all layers with the passages."""
    return ms.calibrate(model, passages.split(BATCH), gather=("norms", "gram"), layers=layers)


def prune(weight: torch.Tensor, calibration: Any, pattern: str) -> tuple[dict[str, torch.Tensor], ms.AdmmUpdate, float]:
    """Prune a layer by each method; returns the weights by method, ADMM's update, and the seconds of `reconstruct`."""
    magnitude_mask = ms.solve(ms.magnitude(weight), pattern).mask
    wanda_mask = ms.solve(ms.wanda(weight, calibration.norms), pattern).mask
    started = time.perf_counter()
    reconstructed = ms.reconstruct(weight, magnitude_mask, calibration.gram)
    seconds = time.perf_counter() - started
    assert reconstructed.error <= reconstructed.masked_error
    admm = ms.admm(weight, calibration.gram, pattern)
    weights = (
        weight * magnitude_mask,
        weight * wanda_mask,
        reconstructed.weight,
        ms.reconstruct(weight, wanda_mask, calibration.gram).weight,
        admm.weight,
    )
    return dict(zip(METHODS, weights, strict=True)), admm, seconds


def relative_error(updated: torch.Tensor, weight: torch.Tensor, gram: Any) -> float:
    """Squared error of the output as a share of the squared norm of the dense output."""
    gram = torch.from_numpy(gram)
    change, dense = (updated - weight).double(), weight.double()
    return float(((change @ gram) * change).sum() / ((dense @ gram) * dense).sum())


def embedding_distance(model: minilm.MiniLM, weights: Mapping[str, torch.Tensor], passages: torch.Tensor) -> float:
    """Mean of 1 - cosine between the passages' embeddings with these weights and without."""
    with torch.no_grad():
        dense = torch.cat([model(batch).mean(1) for batch in passages.split(BATCH)])
        pruned = torch.cat(
            [torch.func.functional_call(model, dict(weights), batch).mean(1) for batch in passages.split(BATCH)]
        )
    return float((1 - functional.cosine_similarity(dense, pruned)).mean())


def measure(pattern: str, depth: int) -> tuple[list[list[str]], list[str]]:
    """Return rows of errors, one for each type of layer and one for all layers; and a row for the pruned model."""
    model, passages = minilm.load(), minilm.passages(PASSAGES)
    held_out = minilm.passages(HELD_OUT, held_out=True)
    layers = [glob.replace("encoder.*", f"encoder.layer.{k}.*") for k in range(depth) for glob in minilm.LINEARS]
    calibration, held_out_statistics = gather(model, passages, layers), gather(model, held_out, layers)
    state, pruned = model.state_dict(), {method: {} for method in METHODS}
    errors: dict[str, list[tuple[list[float], list[float]]]] = {}
    solves, seconds = [], []
    for name in calibration:
        weights, admm, reconstruction_s = prune(state[name], calibration[name], pattern)
        calibration_errors, held_out_errors = (
            [relative_error(weights[method], state[name], layer_statistics[name].gram) for method in METHODS]
            for layer_statistics in (calibration, held_out_statistics)
        )
        # The name without `encoder.layer.NUMBER.`
        layer_type = name.split(".", 3)[3].removesuffix(".weight").removesuffix(".dense")
        errors.setdefault(layer_type, []).append((calibration_errors, held_out_errors))
        solves.append(admm.solves)
        seconds.append(reconstruction_s)
        for method in METHODS:
            pruned[method][name] = weights[method]
        print(
            pattern,
            name,
            *(f"{a:.4f}/{b:.4f}" for a, b in zip(calibration_errors, held_out_errors, strict=True)),
            f"{admm.solves} solves",
        )
    rows = [_row(pattern, layer_type, pairs) for layer_type, pairs in errors.items()]
    rows.append(_row(pattern, "all", [pair for pairs in errors.values() for pair in pairs]))
    distances = [f"{embedding_distance(model, pruned[method], held_out):.4f}" for method in METHODS]
    return rows, [pattern, *distances, f"{statistics.median(solves):.0f} ({min(solves)} to {max(solves)})"]


def _row(pattern: str, layer_type: str, pairs: list[tuple[list[float], list[float]]]) -> list[str]:
    """Return a row of the table; each pair has a layer's errors by method, on calibration and on held-out passages."""
    means = [
        [statistics.mean(pair[side][k] for pair in pairs) for k in range(len(METHODS))] for side in (0, 1)
    ]  # [calibration or held out][method]
    cells = [f"{calibration:.4f} / {held_out:.4f}" for calibration, held_out in zip(*means, strict=True)]
    magnitude, reconstructed, admm = map(METHODS.index, ("magnitude", "magnitude, reconstructed", "ADMM"))
    gains = [calibration[magnitude] / calibration[reconstructed] for calibration, _ in pairs]
    admm_gains = [calibration[reconstructed] / calibration[admm] for calibration, _ in pairs]
    return [
        f"{pattern}, {layer_type}",
        *cells,
        f"{statistics.median(gains):.2f}x ({min(gains):.2f}x)",
        f"{statistics.median(admm_gains):.2f}x ({min(admm_gains):.2f}x)",
    ]


def main() -> None:
    """Measure and print; with `--write` also write the page of the documentation."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--depth", type=int, default=minilm.DEPTH, help="encoder layers, from the first")
    options.add_argument("--patterns", nargs="+", default=["2:4", "transposable 2:4", "transposable 8:16"])
    options.add_argument("--write", action="store_true")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    measured = [measure(pattern, arguments.depth) for pattern in arguments.patterns]
    rows = [row for rows_of_pattern, _ in measured for row in rows_of_pattern]
    head = ("pattern, layers", *METHODS, "reconstruction gains (worst)", "extra ADMM gain (worst)")
    model_head = ("pattern", *METHODS, "mask solves a layer (ADMM)")
    text = (
        f"# Reconstruction and ADMM\n\n{stamp()}\n\n{6 * arguments.depth} linear layers of MiniLM, "
        f"{PASSAGES} passages of 128 tokens to calibrate with, {HELD_OUT} of other topics held out, damping 0.01. "
        "Squared error of a layer's output as a share of the output's square, calibration / held out, mean over "
        "layers. Gains are ratios of errors on the calibration data: magnitude mask alone to the same mask "
        f"reconstructed, and that to ADMM; median, and the worst layer in brackets.\n\n{table(head, rows)}\n\n"
        "All layers pruned at once: mean over held-out passages of 1 - cosine between the embeddings before and "
        f"after.\n\n{table(model_head, [row for _, row in measured])}\n"
    )
    print(text)
    if arguments.write:
        (ROOT / "docs" / "benchmarks" / "reconstruction.md").write_text(text)


if __name__ == "__main__":
    main()
