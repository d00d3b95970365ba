"""Assign a layout to every tensor of a checkpoint, or the reason why it stays dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .architectures import Architecture, Unclear
from .candidates import Candidate
from .file_formats import format_reason, kernel_reason
from .layout import Layout, LayoutError
from .roles import Roles

EMPTY = "it has no entries"
BARE = "not the weight of a layer, and may be used as 'x @ w'; say 'out in' or 'in out'"


def with_layouts(
    candidates: Sequence[Candidate],
    given: Mapping[str, Layout] | None = None,
    config: Mapping[str, Any] | None = None,
) -> list[Candidate]:
    """Return candidates with layouts: from the caller, else from the model, its config, the name, or the shape.

    Args:
        candidates: All tensors of the checkpoint or module; those that have a layout, as a traced model gives, keep it.
        given: Layouts that the caller gives, by tensor name.
        config: The model's `config.json`, if there is one.

    Returns:
        The candidates, each with a layout or a reason why it has none; embeddings, output heads, routers, norms,
        biases, scales and what lies outside the model's blocks are dense by default.

    Raises:
        LayoutError: If a layout of the caller names no candidate or does not match its shape.
    """
    given = given or {}
    _refuse_unknown(given, candidates)
    roles = Roles([candidate.name for candidate in candidates])
    architecture = Architecture({candidate.name: candidate.shape for candidate in candidates}, config)
    return [_with_layout(_with_role(each, roles), _given(each, given), architecture) for each in candidates]


def _with_layout(candidate: Candidate, given: Layout | None, architecture: Architecture) -> Candidate:
    if given is not None:
        _check(given, candidate)
        return replace(candidate, layout=given)
    if candidate.unsupported_reason is not None or len(candidate.shape) < 2:
        return candidate
    layout = _by_rules(candidate, architecture)
    if isinstance(layout, Unclear):
        return replace(candidate, layout=None, unsupported_reason=_unclear_reason(candidate, layout))
    return replace(candidate, layout=layout)


def _unclear_reason(candidate: Candidate, layout: Unclear) -> str:
    """Say why a tensor stays dense; where only the layout keeps a glob from selecting it, say what is unclear, too."""
    if candidate.dense_by_default is None or candidate.only_by_name:
        return candidate.dense_by_default or layout.reason
    return f"{candidate.dense_by_default}; {layout.reason}"


def _by_rules(candidate: Candidate, architecture: Architecture) -> Layout | Unclear:
    name, shape = candidate.name, candidate.shape
    reason = format_reason(candidate.file_format, shape)
    if reason is None and candidate.layout is not None:
        return candidate.layout
    reason = reason or kernel_reason(name, shape)
    if reason is None and not candidate.only_by_name and architecture.is_bare(name, shape):
        reason = BARE
    if reason is not None:
        return Unclear(reason)
    return architecture.layout(name, shape, may_be_convolution=candidate.may_be_convolution)


def _with_role(candidate: Candidate, roles: Roles) -> Candidate:
    if 0 in candidate.shape and candidate.unsupported_reason is None:
        return replace(candidate, unsupported_reason=EMPTY)
    role = roles.role(candidate.name, candidate.shape)
    if role is None or candidate.unsupported_reason is not None:
        return candidate
    if role.cannot_be_masked:
        return replace(candidate, unsupported_reason=role.reason)
    if candidate.dense_by_default is not None and role.selectable_by_glob:
        return candidate
    return replace(candidate, dense_by_default=role.reason, only_by_name=not role.selectable_by_glob)


def _given(candidate: Candidate, given: Mapping[str, Layout]) -> Layout | None:
    return next((given[spelling] for spelling in candidate.spellings if spelling in given), None)


def _check(layout: Layout, candidate: Candidate) -> None:
    try:
        layout.check(candidate.shape)
    except LayoutError as error:
        raise LayoutError(f"tensor {candidate.name!r}: {error}") from None


def _refuse_unknown(given: Mapping[str, Layout], candidates: Sequence[Candidate]) -> None:
    unknown = given.keys() - {spelling for candidate in candidates for spelling in candidate.spellings}
    if unknown:
        raise LayoutError(f"a layout is given for {min(unknown)!r}, but no tensor has this name")
