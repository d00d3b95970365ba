"""Prune a checkpoint with the library alone: proved-optimal masks, zeros written into a copy of the weights.

    python examples/prune_checkpoint.py model.safetensors pruned.safetensors --pattern "transposable 8:16"

Only tensors with two to four dimensions are pruned, and of these none that stays dense by default, such as an embedding
or an output head. The program prints, for each pruned tensor, the share of the score that the mask keeps, and the gap.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import load_file, save_file

import masksmith as ms
from masksmith.layouts import Roles


def prunable_names(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the names of the tensors that are weights of linear layers or convolutions, by their names and shapes."""
    weights = [name for name, shape in shapes.items() if 2 <= len(shape) <= 4]
    roles = Roles(list(shapes), weights)
    return [name for name in weights if roles.role(name, shapes[name]) is None]


def main() -> None:
    """Read a checkpoint, solve all layers together, multiply by the masks, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--pattern", default="transposable 8:16")
    arguments = parser.parse_args()
    weights = load_file(arguments.model)
    names = prunable_names({name: weight.shape for name, weight in weights.items()})
    solutions = ms.solve_many({name: ms.magnitude(weights[name]) for name in names}, arguments.pattern)
    for name, solution in solutions.items():
        weights[name] = weights[name] * solution.mask
        print(f"{name:<50} keeps {solution.retained:.2%} of its magnitude, gap {solution.gap:g}: {solution.status}")
    save_file(weights, arguments.output)
    print(f"{len(solutions)} of {len(weights)} tensors pruned to {arguments.pattern} -> {arguments.output}")


if __name__ == "__main__":
    main()
