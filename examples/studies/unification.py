"""Micro-structured weight unification by ADMM.

    python examples/studies/unification.py [--quick] [--out docs/studies]

Lin et al. (arXiv 2106.08301) unify the weights of a small block: all get one magnitude and keep their signs, so that
each weight is stored as its sign; pruning is the special case of magnitude 0. ADMM chooses the blocks and trains
weights near the projection. They report that unification at a given ratio costs little accuracy, less than pruning as
many blocks. Here 4 x 4 blocks of a perceptron's weights are unified or pruned, at once or by ADMM. `ms.solve` chooses
the blocks with the smallest projection loss, proved optimal; then the other blocks and the magnitudes are fine-tuned.
"""

from __future__ import annotations

import copy
import statistics

import torch
from workbench import (
    Digits,
    Scale,
    accuracy,
    axes,
    digits,
    hidden_weights,
    nn,
    paired,
    plt as plots,
    run,
    spread,
    table,
    train,
    trained,
    verdict,
)

import masksmith as ms

SIDE = 4
RATIOS = (0.5, 0.75, 0.9)
WAYS = ("unify, at once", "unify, ADMM", "prune, at once", "prune, ADMM")
PENALTY, ROUNDS = 0.1, 10
"""Factor of the ADMM penalty, and number of updates of projection and duals."""


def level(weight: torch.Tensor, *, unify: bool) -> torch.Tensor:
    """Set each block's weights to one magnitude: the mean of their magnitudes, with signs kept; 0 without `unify`."""
    if not unify:
        return torch.zeros_like(weight)
    rows, cols = weight.shape
    blocks = weight.abs().view(rows // SIDE, SIDE, cols // SIDE, SIDE)
    return weight.sign() * blocks.mean((1, 3), keepdim=True).expand_as(blocks).reshape(rows, cols)


def project(weight: torch.Tensor, ratio: float, *, unify: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest weight with a share `ratio` of its blocks levelled, and the mask of all other blocks."""
    levelled = level(weight, unify=unify)
    free = ms.solve((weight - levelled) ** 2, f"block {SIDE}x{SIDE} {1 - ratio:.0%}").mask
    return torch.where(free, weight, levelled), free


def admm(net: nn.Module, data: Digits, ratio: float, seed: int, epochs: int, *, unify: bool) -> None:
    """Train with an ADMM penalty that moves the weights near their projection."""
    weights = hidden_weights(net)
    projections = {name: project(weight.detach(), ratio, unify=unify)[0] for name, weight in weights.items()}
    scaled_duals = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def penalty() -> torch.Tensor:
        squares = (((weight - projections[name] + scaled_duals[name]) ** 2).sum() for name, weight in weights.items())
        return PENALTY / 2 * sum(squares, torch.zeros(()))

    for number in range(ROUNDS):
        train(net, data, max(1, epochs // ROUNDS), seed + number, rate=0.02, penalty=penalty)
        for name, weight in weights.items():
            projections[name] = project(weight.detach() + scaled_duals[name], ratio, unify=unify)[0]
            scaled_duals[name] += weight.detach() - projections[name]


def finish(net: nn.Module, data: Digits, ratio: float, seed: int, epochs: int, *, unify: bool) -> float:
    """Project, train the free blocks and the magnitudes, and return the accuracy."""
    weights = hidden_weights(net)
    free = {name: project(weight.detach(), ratio, unify=unify)[1] for name, weight in weights.items()}

    def level_blocks(step: int = 0) -> None:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(torch.where(free[name], weight, level(weight, unify=unify)))

    level_blocks()
    train(net, data, epochs, seed, rate=0.02, after_step=level_blocks)
    return accuracy(net, data)


def measure(ratio: float, seed: int, scale: Scale) -> list[float]:
    """Return the accuracy of each way."""
    data, dense = digits(seed), trained(seed, scale.epochs)
    accuracies, fine_tuning_epochs = [], max(1, scale.epochs // 3)
    for way in WAYS:
        net, unify = copy.deepcopy(dense), way.startswith("unify")
        if way.endswith("ADMM"):
            admm(net, data, ratio, seed + 1000, scale.epochs, unify=unify)
        else:
            # As many epochs as ADMM has, so that the ways are comparable.
            train(net, data, max(scale.epochs, ROUNDS), seed + 1000, rate=0.02)
        accuracies.append(finish(net, data, ratio, seed + 2000, fine_tuning_epochs, unify=unify))
    return accuracies


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Unify and prune at every ratio."""
    rows, verdicts = [], []
    figure, plot = axes("share of blocks unified or pruned", "accuracy")
    ratios = RATIOS[-1:] if scale.quick else RATIOS
    means: dict[str, list[float]] = {way: [] for way in WAYS}
    for ratio in ratios:
        measurements = [measure(ratio, seed, scale) for seed in range(scale.seeds)]
        outcomes = {way: [accuracies[k] for accuracies in measurements] for k, way in enumerate(WAYS)}
        rows.append([f"{ratio:.0%}", *(spread(accuracies) for accuracies in outcomes.values())])
        for way, accuracies in outcomes.items():
            means[way].append(statistics.mean(accuracies))
        by_admm, at_once = outcomes["unify, ADMM"], outcomes["unify, at once"]
        claim = f"{ratio:.0%}: unifying beats pruning, both by ADMM"
        verdicts.append(verdict(claim, *paired(by_admm, outcomes["prune, ADMM"])))
        verdicts.append(verdict(f"{ratio:.0%}: unifying by ADMM beats unifying at once", *paired(by_admm, at_once)))
        claim = f"{ratio:.0%}: pruning by ADMM beats pruning at once"
        verdicts.append(verdict(claim, *paired(outcomes["prune, ADMM"], outcomes["prune, at once"])))
    for way, values in means.items():
        plot.plot(ratios, values, marker="o", label=way)
    plot.legend(fontsize=8)
    header = ("blocks", *WAYS)
    return f"{table(header, rows)}\n\nAre the claims confirmed?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("unification", __doc__, study)
