"""Why one mask does not fit all modules that share a weight: they sum over different axes of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from masksmith.patterns import NM, Block, DoublePruned, Hybrid, Pattern, Unstructured
from masksmith_client.submission.modules import dense_reason, layout_of

UNKNOWN = "axes that its class does not show"


def shared_axes_reason(modules: Mapping[str, torch.nn.Module], weight: torch.Tensor, pattern: Pattern) -> str | None:
    """Return why one mask does not fit all modules that hold a weight as `weight`; None if it does.

    An embedding sums over no axis. Nothing is said about modules none of whose classes shows the axes.

    Args:
        modules: The modules by path.
        weight: The weight.
        pattern: The pattern of the mask.
    """
    axes = {path: _axes(module, weight.ndim) for path, module in modules.items() if dense_reason(module) is None}
    if set(axes.values()) <= {UNKNOWN} or len(set(axes.values())) == 1 or _is_symmetric(pattern, weight):
        return None
    first, second = next((a, b) for a in axes.items() for b in axes.items() if a[1] != b[1])
    return (
        f"{first[0]!r} and {second[0]!r} share it, and use it along different axes ({first[1]}; {second[1]}): take a "
        "pattern that is the same along both, such as 'transposable 2:4', or say with layouts= along which it is masked"
    )


def _axes(module: torch.nn.Module, dimensions: int) -> str:
    layout = layout_of(module, dimensions)
    return UNKNOWN if layout is None else str(layout)


def _is_symmetric(pattern: Pattern, weight: torch.Tensor) -> bool:
    """Whether the masks of a weight are the same if its first two axes are exchanged."""
    if isinstance(pattern, Unstructured):
        return True
    return weight.shape[:2].numel() == weight.numel() and _is_symmetric_matrix_pattern(pattern)


def _is_symmetric_matrix_pattern(pattern: Pattern) -> bool:
    if isinstance(pattern, NM):
        return pattern.transposable and (pattern.n, pattern.m) == (pattern.n_out, pattern.m_out)
    if isinstance(pattern, Hybrid):
        return pattern.rows == pattern.cols and _is_symmetric_matrix_pattern(pattern.inner)
    if isinstance(pattern, Block):
        is_nested_symmetric = pattern.nested is None or _is_symmetric_matrix_pattern(pattern.nested)
        return pattern.rows == pattern.cols and pattern.balance == "none" and is_nested_symmetric
    return isinstance(pattern, DoublePruned)
