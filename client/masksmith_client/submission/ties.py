"""Tied weights: several names of one parameter, which get one mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from masksmith.layouts import Candidate, Layout, Selection
from masksmith.layouts.selection import EXCLUDED
from masksmith.patterns import Pattern
from masksmith_client._errors import InputError

from .streamed_tensor import StreamedTensor
from .tensors import has_memory, is_torch

TieGroup = Sequence[str]
"""All names of one parameter, in the model's order."""


def ties_in_memory(weights: Mapping[str, Any]) -> list[TieGroup]:
    """Return groups of names of torch tensors that are the same memory, with the same shape, strides, dtype and device.

    Arrays of numpy are never tied: only torch loads a state dict into parameters that several names share.
    """
    groups: dict[object, list[str]] = {}
    for name, value in weights.items():
        key = _memory_key(value)
        if key is not None:
            groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def others_by_name(groups: Iterable[TieGroup]) -> dict[str, list[str]]:
    """Return, for each name of a tied weight, its other names."""
    return {name: [other for other in group if other != name] for group in groups for name in group}


def mask_together(
    groups: Iterable[TieGroup],
    reasons: dict[str, str],
    patterns: Mapping[str, Pattern | None],
    layouts: Mapping[str, Layout | None],
) -> dict[str, str]:
    """Mask all names of a parameter if one of them is masked: remove the other names from `reasons`.

    Args:
        groups: The tied weights.
        reasons: Why weights are not masked, by name; changed in place. A weight without a reason is masked.
        patterns: The patterns of the masked weights, by name; those of other weights are not read.
        layouts: The layouts of the masked weights, by name; those of other weights are not read.

    Returns:
        For each name whose reason was removed, the tied name that was masked before.

    Raises:
        InputError: If one name of a parameter is masked and another is excluded, or two masked ones have different
            patterns or layouts.
    """
    added = {}
    for group in groups:
        masked = [name for name in group if name not in reasons]
        if not masked:
            continue
        for name in group:
            if reasons.get(name) == EXCLUDED:
                raise InputError(f"{name!r} is excluded, and it is tied to {masked[0]!r}, which is masked")
            if name in masked:
                _check_equal(name, masked[0], patterns, layouts)
            if reasons.pop(name, None) is not None:
                added[name] = masked[0]
    return added


def _check_equal(
    name: str, first: str, patterns: Mapping[str, Pattern | None], layouts: Mapping[str, Layout | None]
) -> None:
    if patterns[name] != patterns[first]:
        raise InputError(f"{name!r} and {first!r} are tied, and their patterns differ")
    layout, first_layout = layouts[name], layouts[first]
    if _arrangement(layout) != _arrangement(first_layout):
        raise InputError(
            f"{name!r} and {first!r} are tied, and their layouts differ: '{layout}' and '{first_layout}'; set the "
            f"layout of both"
        )


def _arrangement(layout: Layout | None) -> object:
    """Return what a layout says about the tensor, without the rule that it comes from."""
    return None if layout is None else (layout.axes, layout.out_parts)


def select_ties(
    groups: Iterable[TieGroup], candidates: Sequence[Candidate], selection: Selection, patterns: Mapping[str, Pattern]
) -> tuple[list[Candidate], Selection, dict[str, Pattern]]:
    """Select all names of a parameter if one of them is selected; the others get its layout and its pattern.

    Returns:
        The candidates with these layouts; the selection and the patterns with the added names.

    Raises:
        InputError: As `mask_together`.
    """
    reasons = dict(selection.skipped)
    layout_of = {candidate.name: candidate.layout for candidate in candidates}
    added = mask_together(groups, reasons, patterns, layout_of)
    candidates = [
        replace(candidate, layout=layout_of[added[candidate.name]]) if candidate.name in added else candidate
        for candidate in candidates
    ]
    chosen = {*selection.chosen, *added}
    in_order = [candidate.name for candidate in candidates if candidate.name in chosen]
    all_patterns = {**patterns, **{name: patterns[first] for name, first in added.items()}}
    return candidates, Selection(in_order, selection.named, reasons), all_patterns


def check_counted_once(groups: Iterable[TieGroup], weights: Iterable[StreamedTensor]) -> None:
    """Refuse tied weights of a job with a budget, which would count them twice and could give them different patterns.

    Raises:
        InputError: If two of the job's weights are tied.
    """
    names = {weight.name for weight in weights}
    for group in groups:
        masked = [name for name in group if name in names]
        if len(masked) > 1:
            raise InputError(
                f"{masked[1]!r} and {masked[0]!r} are names of one weight, which a budget would count twice: pass the "
                f"tensors as a mapping, such as a state dict, without {masked[1]!r}"
            )


def _memory_key(value: Any) -> object | None:
    """Identify a torch tensor by its memory; None for other values, and for tensors without memory."""
    if not is_torch(value) or not has_memory(value):
        return None
    # A view that negates or conjugates the entries has the same memory, and other values.
    bits = value.is_neg(), value.is_conj()
    return str(value.device), value.data_ptr(), tuple(value.shape), value.stride(), value.dtype, bits
