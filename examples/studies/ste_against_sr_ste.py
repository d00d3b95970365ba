"""N:M from scratch: STE against SR-STE.

    python examples/studies/ste_against_sr_ste.py [--quick] [--out docs/studies]

Zhou et al. (ICLR 2021) train N:M nets from scratch and recompute the mask from the weights during training. With the
straight-through estimator (STE), the gradient of the masked weight is applied to the dense weight, pruned entries
included; SR-STE adds a decay that moves pruned entries to 0. They report that masks change more with STE (SAD is the
number of mask bits that change), and that SR-STE ends with higher accuracy. Here a perceptron learns digits; masks are
refreshed every 5 steps and always proved optimal. The decay is 0.0002 in the paper; larger decays are tried, too,
because a net as small as this one trains for few steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from workbench import (
    Scale,
    accuracy,
    axes,
    digits,
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
from masksmith_client.training import SRSTE, Method, Refresh, Sparsifier, StraightThrough

PATTERNS = ("2:4", "1:4", "1:8")
METHODS: Mapping[str, Method] = {
    "STE": StraightThrough(),
    "SR-STE 0.0002": SRSTE(2e-4),
    "SR-STE 0.002": SRSTE(2e-3),
    "SR-STE 0.02": SRSTE(2e-2),
}
REFRESH_STEPS = 5
"""Steps from one refresh of the masks to the next."""


def learn(pattern: str | None, method: Method | None, seed: int, epochs: int) -> tuple[float, list[int]]:
    """Train a network, dense if `pattern` or `method` is None.

    Returns its accuracy and the number of mask bits that each refresh changed.
    """
    data, net = digits(seed), perceptron(seed)
    if pattern is None or method is None:
        train(net, data, epochs, seed)
        return accuracy(net, data), []
    layers = ["0.weight", "2.weight"]
    refresh = Refresh(every=REFRESH_STEPS, wait=True)
    # Without the weight decay of the optimizer in `train`, so that pruned entries decay by the method alone.
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    sparsifier = Sparsifier(net, pattern, masks=ms.solve, refresh=refresh, method=method, layers=layers)
    train(net, data, epochs, seed, optimizer=optimizer, after_step=lambda step: sparsifier.step())
    changes = [record.sad for record in sparsifier.report().refreshes]
    sparsifier.bake()
    return accuracy(net, data), changes


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Train every pattern with every method."""
    rows, verdicts = [], []
    figure, plot = axes("refresh", "mask bits changed by the refresh (2:4)")
    dense = [learn(None, None, seed, scale.epochs)[0] for seed in range(scale.seeds)]
    rows.append(["dense", "", spread(dense), "", ""])
    for pattern in PATTERNS[: 1 if scale.quick else None]:
        outcomes = {
            name: [learn(pattern, method, seed, scale.epochs) for seed in range(scale.seeds)]
            for name, method in METHODS.items()
        }
        accuracies = {name: [run_accuracy for run_accuracy, _ in runs] for name, runs in outcomes.items()}
        flips = {name: [float(sum(changes)) for _, changes in runs] for name, runs in outcomes.items()}
        for name, runs in outcomes.items():
            flips_of_second_half = [float(sum(changes[len(changes) // 2 :])) for _, changes in runs]
            texts = [spread(accuracies[name]), spread(flips[name], ",.0f"), spread(flips_of_second_half, ",.0f")]
            rows.append([pattern, name, *texts])
            if pattern == PATTERNS[0]:
                curve = torch.tensor([changes[1:] for _, changes in runs]).float().mean(0)
                plot.plot(range(1, len(curve) + 1), curve, label=name)
        for name in list(METHODS)[1:]:
            claim = f"{pattern}, {name} has more accuracy than STE"
            verdicts.append(verdict(claim, *paired(accuracies[name], accuracies["STE"])))
            difference = paired(flips["STE"], flips[name])
            verdicts.append(verdict(f"{pattern}, {name} flips fewer mask bits than STE", *difference, ",.0f"))
    plot.set_yscale("symlog")
    plot.legend()
    header = ("pattern", "method", "accuracy", "SAD, all refreshes", "SAD, second half")
    return f"{table(header, rows)}\n\nAre the claims confirmed?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("ste_against_sr_ste", __doc__, study)
