"""Names of modules and parameters without the segments that wrappers add; torch is not imported."""

from __future__ import annotations

from typing import Any

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Segments that `torch.compile`, activation checkpointing and FSDP add."""
CONTAINERS = ("DistributedDataParallel", "DataParallel", "AveragedModel")
"""Classes that hold the model they wrap as `module`."""


def plain_path(model: Any, path: str) -> str:
    """Return a path without the segments of wrappers; `module` is such a segment if its parent is in `CONTAINERS`.

    Args:
        model: The torch module in which the path begins; None if it is not known, and `module` then stays.
        path: Path of a module or of a parameter.
    """
    plain_segments, parent = [], model
    for segment in path.split("."):
        if not _is_wrapper(segment, parent):
            plain_segments.append(segment)
        parent = _child(parent, segment)
    return ".".join(plain_segments)


def without_wrappers(model: Any) -> Any:
    """Return the torch module inside the wrappers that `plain_path` leaves out; without wrappers, the module itself."""
    inner = [_child(model, segment) for segment in (*WRAPPERS, "module") if _is_wrapper(segment, model)]
    wrapped = next((child for child in inner if child is not None), None)
    return model if wrapped is None else without_wrappers(wrapped)


def _is_wrapper(segment: str, parent: Any) -> bool:
    return segment in WRAPPERS or (segment == "module" and type(parent).__name__ in CONTAINERS)


def _child(parent: Any, segment: str) -> Any:
    return getattr(parent, "_modules", {}).get(segment)
