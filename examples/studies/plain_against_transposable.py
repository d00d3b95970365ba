"""Plain against transposable N:M: accuracy, retained score and mask diversity.

    python examples/studies/plain_against_transposable.py [--quick] [--out docs/studies]

Hubara et al. (NeurIPS 2021) explain the accuracy of N:M nets by mask diversity, the number of masks that a pattern
allows: transposable masks, which hold for the forward and the backward pass, lose accuracy at 2:4, and almost none at
4:8 and larger patterns. Here dense nets are pruned once by magnitude, and fine-tuned with the fixed mask. Diversity is
computed by `ms.diversity`, in bits for each 256 weights: exactly, except for transposable 8:16, for which an asymptotic
formula is used (the published formula counts too many masks). Masks are proved optimal.
"""

from __future__ import annotations

import copy
import statistics

from workbench import (
    Scale,
    accuracy,
    axes,
    digits,
    hidden_weights,
    keep_masked,
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

PATTERNS = ("2:4", "4:8", "8:16", "1:8", "2:16", "4:32")
DIVERSITY_WEIGHTS = 256
"""Number of weights for which the diversity is given."""


def prune(pattern: str, seed: int, scale: Scale) -> tuple[float, float, float]:
    """Prune a trained network; returns retained score, and accuracy before and after fine-tuning."""
    data, net = digits(seed), trained(seed, scale.epochs)
    weights = hidden_weights(net)
    solutions = {name: ms.solve(ms.magnitude(weight), pattern) for name, weight in weights.items()}
    kept_score = sum(solution.objective for solution in solutions.values())
    retained = kept_score / sum(solution.total_score for solution in solutions.values())
    pruned = copy.deepcopy(net)
    apply_masks = keep_masked(pruned, {name: solution.mask for name, solution in solutions.items()})
    at_once = accuracy(pruned, data)
    train(pruned, data, max(1, scale.epochs // 3), seed + 1000, rate=0.02, after_step=apply_masks)
    return retained, at_once, accuracy(pruned, data)


def study(scale: Scale) -> tuple[str, plots.Figure]:
    """Prune to every pattern, plain and transposable."""
    rows, verdicts = [], []
    figure, plot = axes("mask diversity, bits for each 256 weights", "accuracy before fine-tuning")
    for pattern in PATTERNS[: 2 if scale.quick else None]:
        outcomes = {
            form: [prune(form, seed, scale) for seed in range(scale.seeds)]
            for form in (pattern, f"transposable {pattern}")
        }
        for form, results in outcomes.items():
            retained, at_once, tuned = zip(*results, strict=True)
            bits = ms.diversity(form).log2_masks(DIVERSITY_WEIGHTS)
            rows.append([form, f"{bits:.0f}", f"{statistics.mean(retained):.2%}", spread(at_once), spread(tuned)])
            marker = "o" if form == pattern else "s"
            plot.scatter(bits, statistics.mean(at_once), marker=marker)
            plot.annotate(form.replace("transposable", "T"), (bits, statistics.mean(at_once)), fontsize=8)
        for column, when in ((1, "at once"), (2, "after fine-tuning")):
            plain, transposable = ([result[column] for result in results] for results in outcomes.values())
            verdicts.append(verdict(f"{pattern}: plain beats transposable {when}", *paired(plain, transposable)))
    header = ("pattern", "diversity, bits", "retained magnitude", "accuracy at once", "after fine-tuning")
    return f"{table(header, rows)}\n\nDoes a transposable mask cost accuracy?\n\n" + "\n".join(verdicts), figure


if __name__ == "__main__":
    run("plain_against_transposable", __doc__, study)
