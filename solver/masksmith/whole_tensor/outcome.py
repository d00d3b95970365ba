"""What a plan hands back, and the solution that is made of it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from masksmith._errors import VerificationError
from masksmith._panels import Duals
from masksmith._solution import Solution, Status
from masksmith._tensors import Source, like
from masksmith._verify.whole_tensor import examine
from masksmith.patterns import Pattern

from .reader import Ask, Reader


@dataclass
class Outcome:
    """A mask's numbers; the mask itself lies in the reader's sink.

    Attributes:
        objectives: Score kept by each piece, in what the plan maximises.
        violations: How much more any mask of the piece could keep at most.
        kept_score: Sum of the kept scores.
        kept: Number of kept entries.
        solver: What ran.
        edge_score: Scores of a dense edge, which is no part of a piece but of the objective.
        cut_short: Whether the time limit ended a search.
    """

    objectives: Duals
    violations: Duals
    kept_score: float
    kept: int
    solver: str
    edge_score: float = 0.0
    cut_short: bool = False


def conclude(reader: Reader, pattern: Pattern, outcome: Outcome, ask: Ask, begun: float) -> Solution:
    """Make the solution of a plan's outcome, once its mask is verified.

    Raises:
        VerificationError: If the mask breaks the pattern: a bug, never a user's fault.
    """
    found = examine(Source(reader.sink.mask, "in", "mask"), pattern)
    if found.message:
        raise VerificationError(
            f"{ask.name or 'scores'}: the mask found breaks {pattern}: {found.message}; report this"
        )
    objective = math.fsum(outcome.objectives.flat) + outcome.edge_score
    proved = not outcome.violations.any()
    bound = objective if proved else float(np.nextafter(objective + math.fsum(outcome.violations.flat), math.inf))
    return Solution(
        mask=like(reader.sink.mask, reader.tensor),
        pattern=pattern,
        objective=objective,
        upper_bound=bound,
        status=Status.OPTIMAL if proved else Status.TIME_LIMIT if outcome.cut_short else Status.FEASIBLE,
        tile_objectives=outcome.objectives,
        tile_bounds=outcome.objectives + outcome.violations,
        total_score=reader.total,
        kept=outcome.kept,
        unshifted_objective=outcome.kept_score,
        stats={
            "solver": outcome.solver,
            "tiles": outcome.objectives.size,
            "optimal_tiles": int((outcome.violations == 0).sum()),
            "solve_s": time.perf_counter() - begun,
            "threads": ask.threads,
            "device": "cpu",
        },
    )
