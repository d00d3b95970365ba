"""Names of modules and parameters without the segments that wrappers add; torch is not imported."""

from __future__ import annotations

from typing import Any

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Segments that `torch.compile`, activation checkpointing and FSDP add."""
CONTAINERS = {
    "DistributedDataParallel": ("module",),
    "DataParallel": ("module",),
    "AveragedModel": ("module",),
    "_FabricModule": ("_forward_module", "_original_module"),
}
"""Classes of wrappers, each with the names of the submodules that may be the wrapped model.

`setup` of Lightning Fabric returns a `_FabricModule`.
"""


def plain_path(model: Any, path: str) -> str:
    """Return a path without the segments that wrappers add.

    A segment in `WRAPPERS` is always left out. A segment such as `module` is left out only if `CONTAINERS` lists it for
    the class of its parent.

    Args:
        model: The torch module in which the path begins; None if it is not known: then segments such as
            `module` stay.
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
    inner = [_child(model, segment) for segment in (*WRAPPERS, *_wrapped_in(model))]
    wrapped = next((child for child in inner if child is not None), None)
    return model if wrapped is None else without_wrappers(wrapped)


def _is_wrapper(segment: str, parent: Any) -> bool:
    return segment in WRAPPERS or segment in _wrapped_in(parent)


def _wrapped_in(module: Any) -> tuple[str, ...]:
    return CONTAINERS.get(type(module).__name__, ())


def _child(parent: Any, segment: str) -> Any:
    children = getattr(parent, "_modules", {})
    return children[segment] if segment in children else None  # noqa: SIM401 # TorchScript's container has no `get`.
