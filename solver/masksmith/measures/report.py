"""`report`: the measures of one solution, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from masksmith._errors import ScoresError
from masksmith._solution import Solution
from masksmith._tensors import is_torch
from masksmith.layouts import Layout
from masksmith.patterns import NM, Pattern, capacity, storage
from masksmith.scores.operands import read_weight, shape_of

from .counts import count
from .diversity import Diversity, diversity
from .spectrum import Spectrum, spectrum as singular_values
from .stability import Change, change

EFFICIENCY = "accuracy divided by millions of kept weights of this tensor"
"""Definition of `accuracy_per_million_kept`; the literature has several definitions of parameter efficiency."""


@dataclass(frozen=True)
class Report:
    """Measures of one mask; a measure that was not requested, or does not apply, is None.

    Attributes:
        pattern, status: As in the solution.
        shape: Of the weight.
        objective, upper_bound, gap, retained, density: As in the solution.
        kept: Entries kept.
        fill: Kept entries divided by the `capacity` of the pattern, at most 1.
        change: Difference from the mask `previous`.
        diversity: Number of allowed masks of a tile, for N:M patterns.
        storage_bytes: Bytes of the masked weight by storage format, see `storage`.
        spectrum: Smallest, mean and largest singular value of the masked weight.
        accuracy: The argument `accuracy`.
        accuracy_per_million_kept: See `EFFICIENCY`.
    """

    pattern: str
    status: str
    shape: tuple[int, ...]
    objective: float
    upper_bound: float
    gap: float
    retained: float
    density: float
    kept: int
    fill: float
    change: Change | None
    diversity: Diversity | None
    storage_bytes: Mapping[str, int | None]
    spectrum: Spectrum | None
    accuracy: float | None
    accuracy_per_million_kept: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON, with the definition `EFFICIENCY` if there is an accuracy.

        The exact number of masks of a tile is a string, since it may have many digits.
        """
        document = asdict(self) | {"shape": list(self.shape), "storage_bytes": dict(self.storage_bytes)}
        if self.diversity is not None:
            exact = self.diversity.count
            document["diversity"] |= {
                "count": None if exact is None else str(exact),
                "bits_per_weight": self.diversity.bits_per_weight,
            }
        return document | {"efficiency": EFFICIENCY if self.accuracy is not None else None}


def report(
    solution: Solution,
    previous: Any = None,
    *,
    weight: Any = None,
    accuracy: float | None = None,
    item_bytes: int = 2,
    block: tuple[int, int] = (16, 16),
    layout: Layout | str | None = None,
) -> Report:
    """Measure a solution.

    Args:
        solution: Result of `solve`.
        previous: An earlier mask or `Solution` of the same shape, for `change`.
        weight: The weight, for `spectrum`, which takes a singular value decomposition; None leaves `spectrum` out.
        accuracy: Accuracy of the model with this mask, in any unit, for `accuracy_per_million_kept`.
        item_bytes: Size of a stored value, in bytes.
        block: Block size of the BSR storage.
        layout: How the tensor is made of matrices; by default as in the call of `solve`, whose `view` applies, too.

    Raises:
        ScoresError: If the shape of `previous` or `weight` is not that of the mask; or if there is an `accuracy`, and
            the mask keeps nothing.
    """
    if not isinstance(solution, Solution):
        raise ScoresError(f"a {type(solution).__name__} is no solution; pass the result of solve", name="solution")
    shape = shape_of(solution.mask)
    if weight is not None:
        weight = read_weight(weight, "weight")
        if shape_of(weight) != shape:
            raise ScoresError(f"shape {list(shape)} differs from the weight's {list(shape_of(weight))}", name="mask")
    layout = solution._layout if layout is None else Layout.of(layout)
    mask, weight, layout = _as_solved(solution, weight, layout)
    counts = count(mask, block, layout, solution.pattern)
    before = previous.mask if isinstance(previous, Solution) else previous
    if accuracy is not None and counts.kept == 0:
        raise ScoresError("accuracy per kept weight is undefined: the mask keeps nothing", name="mask")
    return Report(
        pattern=str(solution.pattern),
        status=str(solution.status),
        shape=shape,
        objective=solution.objective,
        upper_bound=solution.upper_bound,
        gap=solution.gap,
        retained=solution.retained,
        density=counts.kept / counts.entries,
        kept=counts.kept,
        fill=counts.kept / _capacity(solution.pattern, shape_of(mask), layout),
        change=None if before is None else change(solution.mask, before),
        diversity=diversity(solution.pattern) if isinstance(solution.pattern, NM) else None,
        storage_bytes=storage(counts, item_bytes),
        spectrum=None if weight is None else singular_values(weight, mask, layout),
        accuracy=accuracy,
        accuracy_per_million_kept=None if accuracy is None else accuracy / (counts.kept / 1e6),
    )


def _as_solved(solution: Solution, weight: Any, layout: Layout | None) -> tuple[Any, Any, Layout | None]:
    """Return mask, weight and layout, with convolutions as matrices if they were solved with `view="flat"`."""
    if not solution._is_flat or len(solution.mask.shape) < 3:
        return solution.mask, weight, layout
    if layout is None:
        return _flattened(solution.mask), None if weight is None else _flattened(weight), None
    mask, weight = (None if each is None else _stacked(each, layout) for each in (solution.mask, weight))
    return mask, weight, Layout(("stack", "out", "in"), layout.out_parts)


def _stacked(tensor: Any, layout: Layout) -> Any:
    """Return the matrices of a tensor as one stack, with convolutions as matrices `[out, in * prod(kernel)]`."""
    matrices = [_flattened(matrix) for matrix in layout.matrices(tensor)]
    if not is_torch(tensor):
        return np.stack(matrices)
    import torch

    return torch.stack(matrices)


def _flattened(tensor: Any) -> Any:
    return tensor.reshape(tensor.shape[0], -1)


def _capacity(pattern: Pattern, shape: tuple[int, ...], layout: Layout | None) -> float:
    """Return the `capacity` of a tensor: with a layout, the sum over the parts that are solved on their own."""
    shapes = [shape] if layout is None else layout.part_shapes(pattern, shape)
    return sum(capacity(pattern, each) for each in shapes)
