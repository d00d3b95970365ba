"""Finds the mask and the new values of one weight from its statistics, and writes the values into the model."""

from __future__ import annotations

from typing import Any

import torch

from masksmith._errors import PruningError
from masksmith._solution import Solution
from masksmith._solve import solve
from masksmith.scores import by_layout as scores_by_layout
from masksmith.updates import by_layout as update_by_layout
from masksmith.updates.admm import uses_duals
from masksmith.updates.update import AdmmUpdate, Update

from .options import SCORES, Options
from .report import WeightReport
from .statistics import WeightStatistics
from .weights import BlockWeight

Tensor = torch.Tensor


def check_has_data(statistics: WeightStatistics, options: Options) -> None:
    """Refuse, with `few_tokens="refuse"`, a weight with a matrix whose statistics are not used.

    Raises:
        PruningError: If there is such a matrix; the message names the first one.
    """
    reasons = statistics.reasons_not_to_use(options.min_tokens)
    if reasons and options.few_tokens == "refuse":
        matrix, reason = next(iter(reasons.items()))
        others = f" (and {len(reasons) - 1} more of this weight)" if len(reasons) > 1 else ""
        advice = "exclude the weight, or pass few_tokens='without data'"
        if statistics.unfollowed_reason is None:
            advice = f"calibrate with more tokens, {advice}"
        raise PruningError(f"{reason}{others}; {advice}", statistics.weight.matrix_name(matrix))


def prune_weight(statistics: WeightStatistics, options: Options) -> WeightReport:
    """Prune a weight of the model in place, and report it.

    Matrices whose statistics are not used (see `WeightStatistics.reasons_not_to_use`) are masked by their weights alone
    and not updated.

    Raises:
        MasksmithError: As scores, solver and update do.
    """
    weight, reasons = statistics.weight, statistics.reasons_not_to_use(options.min_tokens)
    dense = weight.tensor
    gram = statistics.gram_or_identity(reasons.keys())
    solution = solve(
        _scores(weight, dense, gram, options), weight.pattern,
        layout=weight.layout, threads=options.threads, name=weight.name,
        keep_duals=options.update == "admm" and uses_duals(weight.pattern),
    )  # fmt: skip
    mask, masked_weight = solution.mask, dense * solution.mask
    values = masked_weight
    update: Update | None = None
    update_options: dict[str, Any] = {"threads": options.threads, "name": weight.name, **options.update_options}
    if options.update is not None:
        solution, update = update_by_layout(
            weight.layout, options.update, dense, gram, solution, pattern=weight.pattern, **update_options
        )
        mask, values = solution.mask, update.weight
    # If a matrix has the identity instead of its Gram matrix, the update's errors are not on the calibration data.
    measured_update = None if reasons else update
    report = WeightReport(
        weight.name, str(weight.pattern), mask, tuple(statistics.tokens),
        *_errors(statistics, dense, masked_weight, values, measured_update), _proof(solution),
        {weight.matrix_name(matrix): reason for matrix, reason in reasons.items()}, statistics.count_silent_inputs(),
        0.0 if update is None else update.stats["update_s"],
    )  # fmt: skip
    weight.tensor.copy_(values)
    return report


def _proof(solution: Solution) -> dict[str, Any]:
    return {
        "status": str(solution.status),
        "objective": float(solution.objective),
        "upper_bound": float(solution.upper_bound),
        "gap": float(solution.gap),
        "retained": float(solution.retained),
        "solver": solution.stats["solver"],
        "solve_s": solution.stats["solve_s"],
    }


def _scores(weight: BlockWeight, values: Tensor, gram: Tensor, options: Options) -> Tensor:
    kind = SCORES[options.scores]
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    statistic = {"gram": gram, "norms": norms, None: None}[kind]
    scores: Tensor = scores_by_layout(
        weight.layout, options.scores, values, statistic, kind, name=weight.name, **options.score_options
    )
    return scores


def _errors(
    statistics: WeightStatistics, dense: Tensor, masked_weight: Tensor, values: Tensor, update: Update | None
) -> tuple[float, float, float]:
    """Return the squared errors of the outputs with masked and with new values, and the outputs' own squared norm.

    If an update is passed, all are taken from it; it must have used the Gram matrices of the statistics, unchanged.
    """
    if update is not None:
        # ADMM changes the mask; `masked_weight` has the mask that ADMM started from.
        masked_error = update.start_masked_error if isinstance(update, AdmmUpdate) else update.masked_error
        return masked_error, update.error, update.energy
    energy = statistics.squared_norm(statistics.weight.layout.matrices(dense))
    return _error(statistics, dense, masked_weight), _error(statistics, dense, values), energy


def _error(statistics: WeightStatistics, dense: Tensor, values: Tensor) -> float:
    """Return the squared error of the outputs on the calibration data with new values."""
    difference = values.double() - dense.double()
    return statistics.squared_norm(statistics.weight.layout.matrices(difference))
