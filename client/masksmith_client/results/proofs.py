"""Checks again what a job claims of its masks: score kept from the weights, bound from duals that are computed here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksmith.patterns import parse
from masksmith_client._errors import InputError
from masksmith_client.submission.streamed_tensor import BoolMask
from masksmith_wire.documents import TensorReport
from masksmith_wire.masks import MaskInfo
from masksmith_wire.scores import ScoreMethod

TOLERANCE = 1e-9
"""Relative difference of sums of the same scores in another order."""


@dataclass(frozen=True)
class CheckedProof:
    """What is known of a mask after a check.

    Attributes:
        ok: Whether nothing contradicts what the job claims.
        message: One sentence that describes the result.
        objective: Score that the mask keeps, summed here.
        claimed_objective: What the job's document says; None where there is none.
        upper_bound: Upper bound on the score of any allowed mask: computed here if `proved_here`, else the job's.
        proved_here: Whether the bound was computed here, from duals of its own.
    """

    ok: bool
    message: str
    objective: float
    claimed_objective: float | None
    upper_bound: float | None
    proved_here: bool

    def __bool__(self) -> bool:
        return self.ok

    @property
    def gap(self) -> float | None:
        """Relative distance of the objective to the bound; None without a bound."""
        if self.upper_bound is None:
            return None
        return 0.0 if self.upper_bound == 0 else max(0.0, (self.upper_bound - self.objective) / self.upper_bound)


def scores_of(method: str, weight: Any, name: str) -> Any:
    """Score a weight as a job did, where the weight alone determines the scores.

    Raises:
        InputError: If the job used a statistic of the layer.
    """
    from masksmith.scores import by_name

    parsed = ScoreMethod.parse(method)
    if not parsed.is_optional and parsed.kinds:
        kind = parsed.kinds[0]
        raise InputError(f"the scores {method!r} of {name!r} were computed from {kind}: pass them in scores=")
    return by_name(parsed.name, weight, name=name, **parsed.options)


def check_proof(
    name: str, mask: BoolMask, scores: Any, info: MaskInfo | None, report: TensorReport | None, *, prove: bool
) -> CheckedProof:
    """Check the claims of a mask whose bytes and pattern are those of its file.

    Args:
        name: Name of the weight.
        mask: The mask.
        scores: Its scores, in the same shape: numpy array or torch tensor.
        info: Pattern and layout of the mask; None in a file of another program.
        report: What the job claims; None without a job.
        prove: Whether to compute a bound here.

    Raises:
        InputError: If the shapes differ, or a bound is wanted of a mask whose pattern is not known.
    """
    objective = kept_score(name, mask, scores)
    claimed = None if report is None else report.objective
    bound = None if report is None else report.upper_bound
    optimal = report is not None and report.status == "optimal"
    if prove:
        bound = _own_bound(name, scores, info)
    failure = _contradiction(objective, claimed, bound, optimal=optimal, proved_here=prove)
    message = failure or _summary(objective, claimed, bound, prove)
    return CheckedProof(failure is None, message, objective, claimed, bound, prove)


def kept_score(name: str, mask: BoolMask, scores: Any) -> float:
    """Sum the scores that a mask keeps, in float64.

    Raises:
        InputError: If the shapes differ.
    """
    if tuple(mask.shape) != tuple(scores.shape):
        raise InputError(f"the mask of {name!r} has the shape {list(mask.shape)}, and its scores {list(scores.shape)}")
    values = scores if isinstance(scores, np.ndarray) else scores.detach().double().cpu().numpy()
    return float(values[mask].sum(dtype=np.float64))


def _own_bound(name: str, scores: Any, info: MaskInfo | None) -> float:
    import masksmith

    if info is None:
        raise InputError(f"the pattern of the mask of {name!r} is not in its file, so nothing bounds its score")
    pattern = parse(info.pattern, axis=info.axis, ragged=info.ragged)  # type: ignore[arg-type]
    return float(masksmith.solve(scores, pattern, layout=info.layout, name=name).upper_bound)


def _contradiction(
    objective: float, claimed: float | None, bound: float | None, *, optimal: bool, proved_here: bool
) -> str | None:
    if claimed is not None and not math.isclose(objective, claimed, rel_tol=TOLERANCE):
        return f"the mask keeps a score of {objective:.9g}, and the job claims {claimed:.9g}"
    slack = TOLERANCE * abs(objective)
    if bound is not None and objective > bound + slack:
        return f"the mask keeps a score of {objective:.9g}, more than the upper bound {bound:.9g}"
    if optimal and bound is not None and objective < bound - slack:
        whose = "the bound computed here" if proved_here else "its own bound"
        return f"the job claims an optimum, and the mask keeps {objective:.9g} where {whose} is {bound:.9g}"
    return None


def _summary(objective: float, claimed: float | None, bound: float | None, proved_here: bool) -> str:
    if proved_here:
        return f"the mask keeps {objective:.9g}, and a bound computed here is {bound:.9g}"
    if claimed is None:
        return f"the mask keeps {objective:.9g}; no job claims anything of it: verify(..., prove=True) computes a bound"
    return (
        f"the mask keeps {objective:.9g}, as claimed; the bound {bound:.9g} is the job's, whose duals were not sent: "
        "verify(..., prove=True) computes one here"
    )
