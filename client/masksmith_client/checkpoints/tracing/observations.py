"""Results of a traced forward pass, extended to parameters that it did not reach, such as experts without tokens."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from masksmith.layouts.layout import AxisRole


@dataclass(frozen=True, slots=True)
class Observations:
    """Results of a traced forward pass.

    Attributes:
        axes: Axes of the parameters that are matrices.
        reasons: Why other parameters are not matrices.
        parts: For each parameter that fuses several matrices, the number of outputs of each of these matrices.
        notes: Notes for the user about what the pass did not show.
    """

    axes: dict[str, tuple[AxisRole, ...]]
    reasons: dict[str, str]
    parts: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()


def extended_to_siblings(observations: Observations, shapes: Mapping[str, tuple[int, ...]]) -> Observations:
    """Copy axes and reasons to parameters that the pass did not reach, from their siblings.

    Siblings are parameters whose names differ only in numbers. Nothing is copied between siblings if two that the pass
    reached differ in axes or reason, or if any two differ in their number of dimensions. Axes and reasons of names that
    are not in `shapes`, and axes whose number differs from the parameter's number of dimensions, are dropped. Parts and
    notes stay as they are.
    """
    groups = defaultdict(list)
    for name in shapes:
        groups[re.sub(r"\d+", "#", name)].append(name)
    axes = {name: dims for name, dims in observations.axes.items() if len(shapes.get(name, ())) == len(dims)}
    reasons = {name: reason for name, reason in observations.reasons.items() if name in shapes}
    for names in groups.values():
        results = {(axes.get(name), reasons.get(name)) for name in names if name in axes or name in reasons}
        dimension_counts = {len(shapes[name]) for name in names}
        if len(results) != 1 or len(dimension_counts) != 1:
            continue
        shared_axes, shared_reason = next(iter(results))
        for name in names:
            if shared_axes is not None:
                axes[name] = shared_axes
            if shared_reason is not None:
                reasons[name] = shared_reason
    return replace(observations, axes=axes, reasons=reasons)
