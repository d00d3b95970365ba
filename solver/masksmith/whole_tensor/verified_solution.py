"""Verifies a mask of the whole tensor, and builds its solution."""

from __future__ import annotations

import time

from masksmith._errors import VerificationError
from masksmith._solution import Certificate, Run, Solution
from masksmith._tensors import MatrixReader, like
from masksmith._verify.whole_tensor import find_violation

from .passes import TensorPasses


def verified_solution(passes: TensorPasses, certificate: Certificate, solver: str, cut_short: bool = False) -> Solution:
    """Verify the mask that was written, and build the solution.

    Args:
        passes: Passes whose `writer` has the mask.
        certificate: Certificate of the mask.
        solver: Name of the solver.
        cut_short: Whether the time limit ended the search.

    Raises:
        VerificationError: If the mask violates the pattern: a bug, never a usage error.
        ScoresError: If the sum of the scores overflows float64.
    """
    problem, mask = passes.problem, passes.writer.mask
    finding = find_violation(MatrixReader(mask, "in", "mask"), problem.pattern)
    if finding.message:
        raise VerificationError(
            f"{problem.name or 'scores'}: the mask violates {problem.pattern}: {finding.message}; please report this"
        )
    run = Run(solver, time.perf_counter() - passes.started, passes.options.threads, "cpu", cut_short)
    return Solution.from_certificate(like(mask, problem.scores), certificate, run, name=problem.name)
