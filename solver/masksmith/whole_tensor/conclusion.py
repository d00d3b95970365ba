"""The solution of a pattern whose budgets belong to the whole tensor, once its mask is verified."""

from __future__ import annotations

import time

from masksmith._errors import VerificationError
from masksmith._solution import Certificate, Run, Solution
from masksmith._tensors import MatrixReader, like
from masksmith._verify.whole_tensor import examine

from .reader import PanelReader


def conclude(reader: PanelReader, certificate: Certificate, solver: str, cut_short: bool = False) -> Solution:
    """Verify the mask that was written, and make the solution.

    Args:
        reader: Holds the mask.
        certificate: Its numbers.
        solver: Name of what ran.
        cut_short: Whether the time limit ended a search.

    Raises:
        VerificationError: If the mask breaks the pattern: a bug, never a user's fault.
        ScoresError: If float64 does not hold the sum of the scores.
    """
    problem, mask = reader.problem, reader.writer.mask
    finding = examine(MatrixReader(mask, "in", "mask"), problem.pattern)
    if finding.message:
        raise VerificationError(
            f"{problem.name or 'scores'}: the mask breaks {problem.pattern}: {finding.message}; please report this"
        )
    run = Run(solver, time.perf_counter() - reader.started, reader.options.threads, "cpu", cut_short)
    return Solution.from_certificate(like(mask, problem.scores), certificate, run, name=problem.name)
