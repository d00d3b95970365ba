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
OUTSIDE_LAYERS = "not the weight of a layer, and may be used as 'x @ w'; give its layout, 'out in' or 'in out'"


def with_layouts(
    candidates: Sequence[Candidate],
    user_layouts: Mapping[str, Layout] | None = None,
    config: Mapping[str, Any] | None = None,
) -> list[Candidate]:
    """Return candidates with layouts: from the caller, else from the model, its config, the name, or the shape.

    Args:
        candidates: All tensors of the checkpoint or module; those that have a layout, as from a traced model, keep it.
        user_layouts: Layouts that the caller gives, by tensor name.
        config: The model's `config.json`, if there is one.

    Returns:
        The candidates, each with a layout or a reason why it has none. Embeddings, output heads, routers, norms,
        biases, scales and tensors outside the model's blocks are dense by default.

    Raises:
        LayoutError: If a layout of the caller names no candidate or does not match its shape.
    """
    user_layouts = user_layouts or {}
    _refuse_unknown(user_layouts, candidates)
    roles = Roles([candidate.name for candidate in candidates])
    architecture = Architecture({candidate.name: candidate.shape for candidate in candidates}, config)
    return [
        _with_layout(_with_role(each, roles), _user_layout(each, user_layouts), architecture) for each in candidates
    ]


def _with_layout(candidate: Candidate, user_layout: Layout | None, architecture: Architecture) -> Candidate:
    if user_layout is not None:
        _check(user_layout, candidate)
        return replace(candidate, layout=user_layout)
    if candidate.unsupported_reason is not None or len(candidate.shape) < 2:
        return candidate
    layout = _by_rules(candidate, architecture)
    if isinstance(layout, Unclear):
        return replace(candidate, layout=None, unsupported_reason=_unclear_reason(candidate, layout))
    return replace(candidate, layout=layout)


def _unclear_reason(candidate: Candidate, layout: Unclear) -> str:
    """Return why a tensor without a layout stays dense: its role, and what is unclear, if a glob could select it."""
    if candidate.dense_by_default is None or candidate.only_by_name:
        return candidate.dense_by_default or layout.reason
    return f"{candidate.dense_by_default}; {layout.reason}"


def _by_rules(candidate: Candidate, architecture: Architecture) -> Layout | Unclear:
    name, shape = candidate.name, candidate.shape
    reason = format_reason(candidate.file_format, shape)
    if reason is None and candidate.layout is not None:
        return candidate.layout
    reason = reason or kernel_reason(name, shape)
    if reason is None and not candidate.only_by_name and architecture.is_outside_layers(name, shape):
        reason = OUTSIDE_LAYERS
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


def _user_layout(candidate: Candidate, user_layouts: Mapping[str, Layout]) -> Layout | None:
    return next((user_layouts[spelling] for spelling in candidate.spellings if spelling in user_layouts), None)


def _check(layout: Layout, candidate: Candidate) -> None:
    try:
        layout.check(candidate.shape)
    except LayoutError as error:
        raise LayoutError(f"tensor {candidate.name!r}: {error}") from None


def _refuse_unknown(user_layouts: Mapping[str, Layout], candidates: Sequence[Candidate]) -> None:
    unknown = user_layouts.keys() - {spelling for candidate in candidates for spelling in candidate.spellings}
    if unknown:
        raise LayoutError(f"a layout is given for {min(unknown)!r}, but no tensor has this name")
