"""Dynamical isometry: what pruning does to it, OrthP, and larger fine-tuning rates.

    python examples/studies/isometry.py [--quick] [--out docs/studies]

A net is dynamically isometric where the singular values of its Jacobian (JSV: d logits / d input) are all near 1,
which makes it easy to train. Wang, Qin and others (Dynamical Isometry, the missing ingredient of neural network
pruning; TPP, ICLR 2023) report that removing neurons destroys it, that a larger fine-tuning rate ends higher because
it recovers it better, and that orthogonalising the kept weights (OrthP) recovers it at once, after which the larger
rate has no such advantage. As there, a linear net of seven layers is taken, orthogonal at first, and 80 % of its
hidden neurons are removed by magnitude.
"""

from __future__ import annotations

import copy
import statistics
from itertools import pairwise

import torch
from workbench import (
    Digits,
    Scale,
    accuracy,
    axes,
    digits,
    nn,
    paired,
    plt as plots,
    run,
    spread,
    table,
    train,
    verdict,
)

import masksmith as ms

DEPTH, WIDTH, KEPT = 7, 100, "20%"
RATES = (0.001, 0.01)


def linear_network(seed: int, widths: list[int]) -> nn.Sequential:
    """Return a linear network with orthogonal weights."""
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight)
    return nn.Sequential(*layers)


def mean_jsv(net: nn.Sequential) -> float:
    """Mean singular value of d logits / d input, which is the same for every input of a linear net."""
    product = torch.eye(64)
    with torch.no_grad():
        for layer in net:
            product = layer.weight @ product
    return float(torch.linalg.svdvals(product).mean())


def without_small_neurons(net: nn.Sequential) -> nn.Sequential:
    """Remove the hidden neurons of smallest magnitude, with their incoming and outgoing weights."""
    pruned, previous_kept = copy.deepcopy(net), torch.arange(64)
    for number, layer in enumerate(pruned):
        weight, bias = layer.weight.detach(), layer.bias.detach()
        kept = torch.arange(len(weight))
        if number < len(pruned) - 1:
            kept = ms.solve(ms.magnitude(weight), f"channels out {KEPT}").mask.any(1).nonzero()[:, 0]
        layer.weight, layer.bias = nn.Parameter(weight[kept][:, previous_kept]), nn.Parameter(bias[kept])
        previous_kept = kept
    return pruned


def orthogonalise(net: nn.Sequential) -> nn.Sequential:
    """Return OrthP of a network: each weight becomes the orthogonal factor of its QR decomposition."""
    result = copy.deepcopy(net)
    with torch.no_grad():
        for layer in result:
            tall = layer.weight if layer.weight.shape[0] >= layer.weight.shape[1] else layer.weight.T
            factor, upper = torch.linalg.qr(tall)
            factor = factor * upper.diagonal().sign()
            layer.weight.copy_(factor if tall is layer.weight else factor.T)
    return result


def measure(seed: int, scale: Scale) -> dict[str, tuple[float, float]]:
    """Return mean JSV and accuracy of a network: dense, pruned, OrthP, and each fine-tuned at either rate."""
    data: Digits = digits(seed)
    net = linear_network(seed, [64, *[WIDTH] * (DEPTH - 1), 10])
    train(net, data, scale.epochs, seed, rate=0.01)
    pruned = without_small_neurons(net)
    stages = {"dense": net, "pruned": pruned, "pruned, OrthP": orthogonalise(pruned)}
    for name in ("pruned", "pruned, OrthP"):
        for rate in RATES:
            tuned = copy.deepcopy(stages[name])
            train(tuned, data, scale.epochs, seed + 1000, rate=rate)
            stages[f"{name}, tuned at {rate}"] = tuned
    return {name: (mean_jsv(stage), accuracy(stage, data)) for name, stage in stages.items()}


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Measure all stages."""
    outcomes = [measure(seed, scale) for seed in range(scale.seeds)]
    stages = {name: list(zip(*(one[name] for one in outcomes), strict=True)) for name in outcomes[0]}
    rows = [[name, spread(jsv, ".3f"), spread(reached)] for name, (jsv, reached) in stages.items()]
    figure, plot = axes("mean JSV", "accuracy")
    for name, (jsv, reached) in stages.items():
        plot.scatter(statistics.mean(jsv), statistics.mean(reached), label=name)
    plot.set_xscale("symlog", linthresh=1e-3)
    plot.legend(fontsize=7)
    small, large = (f"tuned at {rate}" for rate in RATES)
    plain, orth = ("pruned, {}".format, "pruned, OrthP, {}".format)
    verdicts = [
        verdict("pruning lowers the mean JSV", *paired(stages["dense"][0], stages["pruned"][0]), ".3f"),
        verdict("OrthP raises it again", *paired(stages["pruned, OrthP"][0], stages["pruned"][0]), ".3f"),
        verdict("the larger rate recovers more JSV", *paired(stages[plain(large)][0], stages[plain(small)][0]), ".3f"),
        verdict("the larger rate ends with more accuracy", *paired(stages[plain(large)][1], stages[plain(small)][1])),
        verdict("after OrthP it still does", *paired(stages[orth(large)][1], stages[orth(small)][1])),
        verdict("OrthP ends higher at the small rate", *paired(stages[orth(small)][1], stages[plain(small)][1])),
        verdict("OrthP ends higher at the large rate", *paired(stages[orth(large)][1], stages[plain(large)][1])),
    ]
    head = ("stage", "mean JSV", "accuracy")
    return f"{table(head, rows)}\n\nDid the claims show up?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("isometry", __doc__, study)
