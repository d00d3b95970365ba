"""Prune a checkpoint with the library alone: proved-optimal masks, zeros written into a copy of the weights.

    python examples/prune_checkpoint.py model.safetensors pruned.safetensors --pattern "transposable 8:16"

Only tensors with two to four dimensions are pruned, and no embeddings. The program prints, for each pruned tensor, the
share of the score that the mask keeps, and the gap.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.numpy import load_file, save_file

import masksmith as ms


def is_prunable(name: str, ndim: int) -> bool:
    """Whether a tensor is a linear or convolution weight, by its dimensions, and not an embedding, by its name."""
    return 2 <= ndim <= 4 and "embedding" not in name


def main() -> None:
    """Read a checkpoint, solve all layers together, multiply by the masks, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pattern", default="transposable 8:16")
    arguments = parser.parse_args()
    weights = load_file(arguments.model)
    layers = {name: weight for name, weight in weights.items() if is_prunable(name, weight.ndim)}
    solutions = ms.solve_many({name: ms.magnitude(weight) for name, weight in layers.items()}, arguments.pattern)
    for name, solution in solutions.items():
        weights[name] = weights[name] * solution.mask
        print(f"{name:<50} keeps {solution.retained:.2%} of its magnitude, gap {solution.gap:g}: {solution.status}")
    save_file(weights, arguments.output)
    print(f"{len(solutions)} of {len(weights)} tensors pruned to {arguments.pattern} -> {arguments.output}")


if __name__ == "__main__":
    main()
