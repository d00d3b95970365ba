"""Makes the plan of a masks job from its located tensors."""

from __future__ import annotations

from masksmith.patterns import PatternError
from masksmith_service.errors import RequestError
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.documents import Skipped
from masksmith_wire.errors import Code
from masksmith_wire.specification import JobSpecification

from .located_tensors import no_tensor_fits_error


def make_plan(specification: JobSpecification, tensors: list[PlannedTensor], skipped: list[Skipped]) -> MasksPlan:
    """Make the plan of a job whose tensors have been located.

    Raises:
        RequestError: If there are no tensors, or the budget cannot be met.
    """
    options = specification.options
    if not tensors:
        raise no_tensor_fits_error(len(skipped), options.pattern, skipped)
    try:
        if specification.budget is not None:
            shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors}
            specification.budget.check(shapes, specification.pattern)
    except PatternError as error:
        raise RequestError(Code.INVALID_BUDGET, str(error), budget=options.budget, floors=options.floors) from None
    return MasksPlan(options=options, tensors=tensors, skipped=skipped)
