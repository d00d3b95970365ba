"""Dynamical isometry: what pruning does to it, OrthP, and larger fine-tuning rates.

    python examples/studies/isometry.py [--quick] [--out docs/studies]

A net is dynamically isometric if the singular values of its Jacobian, d logits / d input, are all near 1 (JSV stands
for such a value), which makes it easy to train. Wang, Qin and others (Dynamical Isometry, the missing ingredient of
neural network pruning; TPP, ICLR 2023) report that the removal of neurons destroys dynamical isometry; that a larger
fine-tuning rate reaches a higher accuracy, because it recovers more of the isometry; and that orthogonalising the kept
weights (OrthP) recovers the isometry at once, after which the larger rate has no such advantage. As in their work, the
net is linear, has seven layers and is orthogonal at first; 80 % of its hidden neurons are removed by magnitude.
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

DEPTH, WIDTH, INPUTS, KEPT = 7, 100, 64, "20%"
RATES = (0.001, 0.01)
"""Fine-tuning rates."""


def linear_network(seed: int, widths: list[int]) -> nn.Sequential:
    """Return a linear network with orthogonal weights."""
    torch.manual_seed(seed)
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths)]
    for layer in layers:
        nn.init.orthogonal_(layer.weight)
    return nn.Sequential(*layers)


def mean_jsv(net: nn.Sequential) -> float:
    """Mean singular value of d logits / d input, which is the same for every input of a linear net."""
    product = torch.eye(INPUTS)
    with torch.no_grad():
        for layer in net:
            product = layer.weight @ product
    return float(torch.linalg.svdvals(product).mean())


def without_small_neurons(net: nn.Sequential) -> nn.Sequential:
    """Remove the hidden neurons of smallest magnitude, with their incoming and outgoing weights."""
    pruned, previous_kept = copy.deepcopy(net), torch.arange(INPUTS)
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
            is_wide = layer.weight.shape[0] < layer.weight.shape[1]
            factor, upper = torch.linalg.qr(layer.weight.T if is_wide else layer.weight)
            factor = factor * upper.diagonal().sign()
            layer.weight.copy_(factor.T if is_wide else factor)
    return result


def measure(seed: int, scale: Scale) -> dict[str, tuple[float, float]]:
    """Return mean JSV and accuracy of a network at each stage.

    The stages are: dense; pruned, without and with OrthP; and both pruned networks fine-tuned at each rate.
    """
    data: Digits = digits(seed)
    net = linear_network(seed, [INPUTS, *[WIDTH] * (DEPTH - 1), 10])
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
    # For each stage: the mean JSVs of all seeds, and the accuracies of all seeds.
    stages = {name: list(zip(*(outcome[name] for outcome in outcomes), strict=True)) for name in outcomes[0]}
    rows = [[name, spread(jsvs, ".3f"), spread(accuracies)] for name, (jsvs, accuracies) in stages.items()]
    figure, plot = axes("mean JSV", "accuracy")
    for name, (jsvs, accuracies) in stages.items():
        plot.scatter(statistics.mean(jsvs), statistics.mean(accuracies), label=name)
    plot.set_xscale("symlog", linthresh=1e-3)
    plot.legend(fontsize=7)
    pruned_jsvs, orthp_jsvs = stages["pruned"][0], stages["pruned, OrthP"][0]
    (small_jsvs, small), (large_jsvs, large) = (stages[f"pruned, tuned at {rate}"] for rate in RATES)
    orthp_small, orthp_large = (stages[f"pruned, OrthP, tuned at {rate}"][1] for rate in RATES)
    verdicts = [
        verdict("pruning lowers the mean JSV", *paired(stages["dense"][0], pruned_jsvs), ".3f"),
        verdict("OrthP raises the mean JSV again", *paired(orthp_jsvs, pruned_jsvs), ".3f"),
        verdict("the larger rate recovers more JSV", *paired(large_jsvs, small_jsvs), ".3f"),
        verdict("the larger rate ends with more accuracy", *paired(large, small)),
        verdict("after OrthP, too, the larger rate ends with more accuracy", *paired(orthp_large, orthp_small)),
        verdict("OrthP ends with more accuracy at the small rate", *paired(orthp_small, small)),
        verdict("OrthP ends with more accuracy at the large rate", *paired(orthp_large, large)),
    ]
    header = ("stage", "mean JSV", "accuracy")
    return f"{table(header, rows)}\n\nAre the claims confirmed?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("isometry", __doc__, study)
