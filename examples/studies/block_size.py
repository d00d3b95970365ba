"""Block size: fine-tuning, weight rewinding, random reinitialisation.

    python examples/studies/block_size.py [--quick] [--out docs/studies]

Siswanto (MIT thesis, 2021) prunes blocks of weights and continues in three ways: from the trained weights
(fine-tuning), from the weights of an early epoch (rewinding), or from new random weights (reinitialisation). He
reports that with larger blocks fine-tuning loses accuracy gradually and rewinding tolerates less sparsity, while random
reinitialisation reaches the same accuracy for all block sizes. Here whole blocks of a perceptron's weights are kept by
magnitude, with masks that are proved optimal; all three ways train equally long, which is too short for new random
weights to converge.
"""

from __future__ import annotations

import copy
import statistics
from functools import cache

from workbench import (
    Scale,
    accuracy,
    axes,
    digits,
    hidden_weights,
    keep_masked,
    nn,
    paired,
    perceptron,
    plt as plots,
    run,
    spread,
    table,
    train,
    verdict,
)

import masksmith as ms

SIZES = (1, 4, 16)
WAYS = ("fine-tuning", "rewinding", "reinitialisation")
DENSITIES = ("12.5%", "6.25%")


@cache
def train_dense(seed: int, epochs: int) -> tuple[nn.Module, nn.Module]:
    """Train a network; returns it as it is after a tenth of `epochs`, and after another `epochs`."""
    data = digits(seed)
    early = perceptron(seed)
    train(early, data, max(1, epochs // 10), seed)
    late = copy.deepcopy(early)
    train(late, data, epochs, seed + 1000)
    return early, late


def prune(size: int, density: str, seed: int, scale: Scale) -> list[float]:
    """Keep blocks of a trained network, and train it in the three ways; returns the accuracy of each way."""
    data = digits(seed)
    early, late = train_dense(seed, scale.epochs)
    pattern = density if size == 1 else f"block {size}x{size} {density}"
    masks = {name: ms.solve(ms.magnitude(weight), pattern).mask for name, weight in hidden_weights(late).items()}
    accuracies = []
    for start in (late, early, perceptron(seed + 5000)):
        net = copy.deepcopy(start)
        train(net, data, scale.epochs, seed + 2000, rate=0.05, after_step=keep_masked(net, masks))
        accuracies.append(accuracy(net, data))
    return accuracies


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Prune with every block size and density."""
    rows, verdicts = [], []
    figure, plot = axes("block side", "accuracy")
    for density in DENSITIES[: 1 if scale.quick else None]:
        outcomes = {
            size: [prune(size, density, seed, scale) for seed in range(scale.seeds)]
            for size in (SIZES[::2] if scale.quick else SIZES)
        }
        for k, way in enumerate(WAYS):
            by_size = {size: [result[k] for result in results] for size, results in outcomes.items()}
            rows.append([f"{density}, {way}", *(spread(values) for values in by_size.values())])
            means = [statistics.mean(values) for values in by_size.values()]
            plot.plot(list(by_size), means, label=f"{density}, {way}")
            loss = paired(by_size[1], by_size[16])
            verdicts.append(verdict(f"{density}, {way}: 16 x 16 blocks lose accuracy against single weights", *loss))
    plot.set_xscale("log", base=2)
    plot.legend(fontsize=8)
    header = ("kept, way", *(f"{size} x {size}" for size in outcomes))
    return f"{table(header, rows)}\n\nDo large blocks cost accuracy?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("block_size", __doc__, study)
