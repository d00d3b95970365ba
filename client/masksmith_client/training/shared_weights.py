"""Why one mask does not fit all modules that share a weight: they sum over different axes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from masksmith.patterns import NM, Block, DoublePruned, Hybrid, Pattern, Unstructured
from masksmith_client.submission.modules import layout_of


def shared_axes_reason(modules: Mapping[str, torch.nn.Module], weight: torch.Tensor, pattern: Pattern) -> str | None:
    """Return why one mask does not fit all modules that hold a weight as `weight`; None if it does.

    An embedding sums over no axis, and a wrapper leaves the sum to the module that it contains. Nothing is said about
    modules none of whose classes shows the axes.

    Args:
        modules: The modules by path.
        weight: The weight.
        pattern: The pattern of the mask.
    """
    axes = {path: layout_of(module, weight.ndim) for path, module in modules.items() if not _is_embedding(module)}
    known = {path: layout for path, layout in axes.items() if layout is not None}
    if not known or _is_symmetric(pattern, weight):
        return None
    path, layout = next(iter(known.items()))
    other = next((other for other in known if str(known[other]) != str(layout)), None)
    if other is not None:
        return (
            f"{path!r} and {other!r} share it, and use it along different axes ({layout}; {known[other]}): take a "
            "pattern that is the same along both, such as 'transposable 2:4', or say with layouts= along which it is "
            "masked"
        )
    unknown = next((other for other in axes if other not in known and not _wraps(modules[other], known, modules)), None)
    if unknown is None:
        return None
    return (
        f"{path!r} and {unknown!r} share it, and the class of {unknown!r} does not show along which axis it is used "
        f"there: say with layouts= along which it is masked, such as '{layout}' as in {path!r}, or take a pattern that "
        "is the same along both axes, such as 'transposable 2:4'"
    )


def _is_embedding(module: torch.nn.Module) -> bool:
    """Whether a module is an embedding, also one that is no subclass of torch's, such as `VocabParallelEmbedding`."""
    return any(each.__name__.endswith(("Embedding", "EmbeddingBag")) for each in type(module).__mro__)


def _wraps(module: torch.nn.Module, paths: Iterable[str], modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether a module contains one of the modules at these paths."""
    contained_ids = {id(each) for each in module.modules()}
    return any(id(modules[path]) in contained_ids for path in paths)


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
