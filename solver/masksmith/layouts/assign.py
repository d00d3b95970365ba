"""Finds, for each tensor of a checkpoint or module, its layout, or the reason why the tensor stays dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .architectures import Architecture, Unclear
from .candidates import Candidate
from .file_formats import format_reason, name_reason
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
        candidates: All tensors of the checkpoint or module. A candidate that has a layout, such as one of a traced
            model, keeps it, and gets the fused parts of its name if it has none. A layout of the caller replaces it.
            An `unsupported_reason` replaces it if the axes of the candidate's `file_format` differ from those of torch.
        user_layouts: Layouts that the caller gives, by name or alias of the tensor.
        config: The model's `config.json`, if there is one.

    Returns:
        The candidates; each one of two or more dimensions has a layout or an `unsupported_reason`. Embeddings, output
        heads, routers, norms, biases, scales and tensors outside the model's blocks are dense by default or
        unsupported.

    Raises:
        LayoutError: If a layout of the caller names no candidate or does not match its shape.
    """
    user_layouts = user_layouts or {}
    _refuse_unknown(user_layouts, candidates)
    weights = [candidate.name for candidate in candidates if _may_be_weight(candidate)]
    roles = Roles([candidate.name for candidate in candidates], weights)
    architecture = Architecture({candidate.name: candidate.shape for candidate in candidates}, config)
    return [
        _with_layout(_with_dense_reason(candidate, roles), _user_layout(candidate, user_layouts), architecture)
        for candidate in candidates
    ]


def _may_be_weight(candidate: Candidate) -> bool:
    """Whether a candidate may be the weight of a layer or of experts; its shape, or shape and dtype, may be unknown."""
    is_unknown = not candidate.shape and not candidate.dtype
    return not candidate.only_by_name and (is_unknown or len(candidate.shape) >= 2)


def _with_layout(candidate: Candidate, user_layout: Layout | None, architecture: Architecture) -> Candidate:
    """Return a candidate with the caller's layout, else with one by the rules, or the reason why its layout is unclear.

    Without a layout of the caller, an unsupported candidate, or one of fewer than two dimensions, stays as it is.
    """
    if user_layout is not None:
        _check(user_layout, candidate)
        return replace(candidate, layout=user_layout)
    if candidate.unsupported_reason is not None or len(candidate.shape) < 2:
        return candidate
    layout = _by_rules(candidate, architecture)
    if isinstance(layout, Unclear):
        reason, if_named = (
            _unclear_reason(candidate, layout, is_named=False),
            _unclear_reason(candidate, layout, is_named=True),
        )
        return replace(
            candidate, layout=None, unsupported_reason=reason, reason_if_named=if_named, has_unclear_layout=True
        )
    return replace(candidate, layout=layout)


def _unclear_reason(candidate: Candidate, unclear: Unclear, *, is_named: bool) -> str:
    """Return why a tensor without a layout stays dense: why it is dense by default, and why its layout is unclear.

    If the tensor is not dense by default, or is known to be outside of layers, only the second reason is returned; else
    if only its full name would select it, and it is not `is_named`, only the first one is returned.
    """
    if candidate.dense_by_default_reason is None or candidate.is_outside_layers:
        return unclear.reason
    return (
        candidate.dense_by_default_reason
        if candidate.only_by_name and not is_named
        else f"{candidate.dense_by_default_reason}; {unclear.reason}"
    )


def _by_rules(candidate: Candidate, architecture: Architecture) -> Layout | Unclear:
    """Return the layout of a candidate for which the caller gives none, or why its layout is unclear."""
    name, shape = candidate.name, candidate.shape
    reason = format_reason(candidate.file_format, shape)
    if reason is not None:
        return Unclear(reason)
    if candidate.layout is not None:
        return architecture.with_parts(name, shape, candidate.layout)
    reason = name_reason(name, shape)
    if reason is not None:
        return Unclear(reason)
    # A tensor that only its full name selects, such as an embedding, is not refused because of its name.
    outside_by_name = not candidate.only_by_name and architecture.is_outside_layers(name, shape)
    if candidate.is_outside_layers or outside_by_name:
        return Unclear(OUTSIDE_LAYERS)
    return architecture.layout(name, shape, may_be_convolution=candidate.may_be_convolution)


def _with_dense_reason(candidate: Candidate, roles: Roles) -> Candidate:
    """Return a candidate with the reason why it stays dense, if it is empty or has a role.

    A reason that the candidate already has stays, since its module or a trace shows it, and not only its name. If no
    glob may select tensors of the role, only the tensor's full name selects it.
    """
    if 0 in candidate.shape and candidate.unsupported_reason is None:
        return replace(candidate, unsupported_reason=EMPTY)
    role = roles.role(candidate.name, candidate.shape)
    if role is None or candidate.unsupported_reason is not None:
        return candidate
    if role.cannot_be_masked:
        return replace(candidate, unsupported_reason=role.reason)
    if candidate.dense_by_default_reason is not None and role.selectable_by_glob:
        return candidate
    reason = candidate.dense_by_default_reason or role.reason
    return replace(candidate, dense_by_default_reason=reason, only_by_name=not role.selectable_by_glob)


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
