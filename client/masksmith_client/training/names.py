"""Names of modules and parameters without the segments that wrappers add."""

from __future__ import annotations

import torch

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""Segments that `torch.compile`, activation checkpointing and FSDP add."""
CONTAINERS = ("DistributedDataParallel", "DataParallel", "AveragedModel")
"""Classes that hold the model they wrap as `module`."""


def plain_path(model: torch.nn.Module | None, path: str) -> str:
    """Return a path without the segments of wrappers; `module` is such a segment if its parent is in `CONTAINERS`."""
    plain_segments, parent = [], model
    for segment in path.split("."):
        is_wrapper = segment in WRAPPERS or (segment == "module" and type(parent).__name__ in CONTAINERS)
        if not is_wrapper:
            plain_segments.append(segment)
        parent = None if parent is None else parent._modules.get(segment)
    return ".".join(plain_segments)


def paths_by_module(model: torch.nn.Module) -> dict[int, list[str]]:
    """Return the current paths of a model's modules, by the module's id; wrapping a module changes its path."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return paths
