"""Select the weights to mask: by name, by glob, or all that can be masked."""

from __future__ import annotations

from collections.abc import Sequence

from masksmith import layouts
from masksmith.layouts import Candidate, Selection, SelectionError
from masksmith.patterns import Pattern
from masksmith.patterns.matching import Globs
from masksmith_client._errors import as_input_errors

from .streamed_tensor import StreamedTensor


def select(
    weights: Sequence[StreamedTensor],
    pattern: Pattern,
    layers: Globs = None,
    exclude: Globs = None,
    bound: str | None = None,
) -> Selection:
    """Select the weights to mask; see `masksmith.layouts.select`.

    Raises:
        InputError: If a name or glob matches nothing, a weight named in full cannot be masked, or no weight remains.
    """
    candidates = [
        Candidate(weight.name, weight.shape, weight.dtype, unsupported_reason=weight.unsupported_reason)
        for weight in weights
    ]
    with as_input_errors(SelectionError):
        return layouts.select(candidates, pattern, layers, exclude, bound=bound)
