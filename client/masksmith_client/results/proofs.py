"""Checks a mask, and what a job claims about it: the score kept, and a bound, which a new solve computes on request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from masksmith.patterns import Block, Pattern, parse
from masksmith_client._errors import InputError
from masksmith_client.submission.streamed_tensor import BoolMask, flat_shape
from masksmith_client.submission.tensors import is_torch
from masksmith_wire.documents import TensorReport
from masksmith_wire.masks import MaskInfo
from masksmith_wire.scores import ScoreMethod
from masksmith_wire.totals import relative_gap

TOLERANCE = 1e-9
"""Largest relative difference that two sums of the same scores may have, because of the order of addition."""


@dataclass(frozen=True)
class CheckedProof:
    """The result of a check of a mask.

    Attributes:
        ok: Whether the score that the mask keeps is finite, equals what the job claims (if there is a job), is at most
            the bound (if there is a bound), and equals the bound (if the job claims an optimum).
        message: One sentence that describes the result.
        objective: Score that the mask keeps, computed in this process, see `kept_objective`.
        claimed_objective: Objective in the job's document; None without a job.
        upper_bound: Upper bound on the score of any allowed mask: computed here if `proved_here`, else the job's; None
            if there is neither, such as when the job found no finite bound.
        proved_here: Whether the bound was computed in this process, from duals of a new solve.
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
        return max(0.0, relative_gap(self.objective, self.upper_bound))


def in_shape_of_mask(values: Any, shape: tuple[int, ...]) -> Any:
    """Return weights or scores as a torch tensor or numpy array, in the shape of their mask if the mask is flat."""
    values = values if is_torch(values) else np.asarray(values)
    own_shape = tuple(values.shape)
    return values.reshape(shape) if own_shape != shape and flat_shape(own_shape) == shape else values


def scores_of(method: str, weight: Any, name: str, info: MaskInfo | None) -> Any:
    """Score a weight as a job did; the weight alone must determine the scores.

    For the method `given`, the job's tensors are assumed to be the scores; `check_assumed_scores` checks this.

    Args:
        method: The job's score method.
        weight: The tensor of the job.
        name: Its name.
        info: Layout of the tensor, each matrix of which is scored on its own; None in a file of another program.

    Raises:
        InputError: If the job used a statistic of the layer.
        MasksmithError: If the tensor does not match the layout.
    """
    from masksmith.scores import by_layout, by_name

    parsed = ScoreMethod.parse(method)
    if parsed.needs_statistic:
        kinds = " or ".join(parsed.kinds)
        raise InputError(f"the scores {method!r} of {name!r} were computed from {kinds}: pass the scores in scores=")
    layout = None if info is None else info.layout
    if layout is None:
        return by_name(parsed.name, weight, name=name, **parsed.options)
    return by_layout(layout, parsed.name, weight, name=name, **parsed.options)


def check_assumed_scores(method: str, name: str, objective: float, report: TensorReport | None) -> None:
    """Check the assumption of `scores_of` about the method `given`: that a job's tensors are themselves the scores.

    The scores may also have been sent beside the tensors, and the job's document does not say which. The assumption
    holds if the mask's objective, computed from the tensor, is the one that the job claims.

    Args:
        method: The job's score method.
        name: Name of the weight.
        objective: The mask's objective, computed with the tensor as scores; see `kept_objective`.
        report: What the job claims; None without a job.

    Raises:
        InputError: If the method is `given`, and the assumption does not hold.
    """
    claimed = None if report is None else report.objective
    if ScoreMethod.parse(method).name == "given" and claimed is not None and not _is_close(objective, claimed):
        raise InputError(
            f"the scores of {name!r} were given to the job, and the sum of the weight that its mask keeps is not the "
            f"objective that the job claims: pass the scores in scores="
        )


def check_proof(
    name: str, objective: float, scores: Any, info: MaskInfo | None, report: TensorReport | None, *, prove: bool
) -> CheckedProof:
    """Check the score that a mask keeps, and the bound on it. The caller has checked the digests of the mask.

    Args:
        name: Name of the weight.
        objective: The mask's objective, see `kept_objective`.
        scores: The scores: numpy array or torch tensor.
        info: Pattern and layout of the mask; None in a file of another program.
        report: What the job claims; None without a job.
        prove: Whether to compute a bound here, by solving again.

    Raises:
        InputError: If `prove` is set and the pattern of the mask is not known.
        MasksmithError: If the new solve fails.
    """
    claimed = None if report is None else report.objective
    bound = None if report is None else report.upper_bound
    claims_optimum = report is not None and report.status == "optimal"
    if prove:
        bound = _computed_bound(name, scores, info)
    failure = _contradiction(objective, claimed, bound, claims_optimum=claims_optimum, proved_here=prove)
    message = failure or _summary(objective, claimed, bound, proved_here=prove)
    return CheckedProof(failure is None, message, objective, claimed, bound, prove)


def kept_objective(name: str, mask: BoolMask, scores: Any, info: MaskInfo | None) -> float:
    """Return the objective of a mask that satisfies its pattern, in float64.

    It is the sum of the scores that the mask keeps; under a block pattern with another norm than l1, the sum of the
    norms of the blocks that it keeps.

    Raises:
        InputError: If the shapes differ.
        MasksmithError: If the pattern does not fit the shape.
    """
    if tuple(mask.shape) != tuple(scores.shape):
        raise InputError(f"the mask of {name!r} has the shape {list(mask.shape)}, and its scores {list(scores.shape)}")
    # Converted to float64 on the CPU, since not every device has this dtype.
    values = scores.detach().cpu().double().numpy() if is_torch(scores) else np.asarray(scores)
    pattern = None if info is None else _pattern(info)
    if info is None or not isinstance(pattern, Block) or pattern.norm == "l1":
        return float(values[mask].sum(dtype=np.float64))
    import masksmith

    # With all dropped scores at 0, the best blocks are those that the mask keeps.
    return float(masksmith.solve(np.where(mask, values, 0), pattern, layout=info.layout, name=name).objective)


def _pattern(info: MaskInfo) -> Pattern:
    return parse(info.pattern, axis=info.axis, ragged=info.ragged)  # type: ignore[arg-type]


def _computed_bound(name: str, scores: Any, info: MaskInfo | None) -> float:
    """Solve again, and return the upper bound of this solve; raises as `check_proof` does."""
    import masksmith

    if info is None:
        raise InputError(f"the pattern of the mask of {name!r} is not in its file, so nothing bounds its score")
    return float(masksmith.solve(scores, _pattern(info), layout=info.layout, name=name).upper_bound)


def _is_close(objective: float, claimed: float) -> bool:
    return math.isclose(objective, claimed, rel_tol=TOLERANCE)


def _contradiction(
    objective: float, claimed: float | None, bound: float | None, *, claims_optimum: bool, proved_here: bool
) -> str | None:
    if not math.isfinite(objective):
        return f"the mask keeps a score of {objective:.9g}, which is not finite"
    if claimed is not None and not _is_close(objective, claimed):
        return f"the mask keeps a score of {objective:.9g}, and the job claims {claimed:.9g}"
    slack = TOLERANCE * abs(objective)
    if bound is not None and objective > bound + slack:
        return f"the mask keeps a score of {objective:.9g}, more than the upper bound {bound:.9g}"
    if claims_optimum and bound is not None and objective < bound - slack:
        bound_name = "the bound computed here" if proved_here else "the job's bound"
        return f"the job claims an optimum, and the mask keeps {objective:.9g} where {bound_name} is {bound:.9g}"
    return None


def _summary(objective: float, claimed: float | None, bound: float | None, *, proved_here: bool) -> str:
    if bound is None and claimed is not None:
        return (
            f"the mask keeps {objective:.9g}, as claimed; the job found no finite bound: "
            "verify(..., prove=True) computes one here"
        )
    if proved_here:
        return f"the mask keeps {objective:.9g}, and a bound computed here is {bound:.9g}"
    if claimed is None:
        return f"the mask keeps {objective:.9g}; no job claims a bound: verify(..., prove=True) computes one"
    return (
        f"the mask keeps {objective:.9g}, as claimed; the bound {bound:.9g} is the job's, whose duals were not sent: "
        "verify(..., prove=True) computes one here"
    )
