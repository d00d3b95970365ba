"""What was seen of a model's parameters, and of those that were not, such as experts that no token chose."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from masksmith.layouts.layout import Word


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a model's parameters.

    Attributes:
        axes: The axes of those that are matrices.
        reasons: Why others are none.
        parts: Rows of the matrices fused in one.
        notes: What could not be seen.
    """

    axes: dict[str, tuple[Word, ...]]
    reasons: dict[str, str]
    parts: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()


def like_their_siblings(seen: Observed, shapes: Mapping[str, tuple[int, ...]]) -> Observed:
    """Give parameters that were not seen what all their siblings have: names that differ in numbers alone."""
    groups = defaultdict(list)
    for name in shapes:
        groups[re.sub(r"\d+", "#", name)].append(name)
    axes = {name: some for name, some in seen.axes.items() if len(shapes.get(name, ())) == len(some)}
    reasons = {name: reason for name, reason in seen.reasons.items() if name in shapes}
    for names in groups.values():
        known = [name for name in names if name in axes or name in reasons]
        kinds = {(axes.get(name), reasons.get(name)) for name in known}
        for name in names if len(kinds) == 1 and len({len(shapes[each]) for each in names}) == 1 else ():
            some, reason = next(iter(kinds))
            axes.update({name: some} if some is not None else {})
            reasons.update({name: reason} if reason is not None else {})
    return replace(seen, axes=axes, reasons=reasons)
