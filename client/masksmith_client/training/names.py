"""Paths of a model's modules."""

from __future__ import annotations

import torch


def paths_by_module(model: torch.nn.Module) -> dict[int, list[str]]:
    """Return the current paths of a model's modules, by the module's id; wrapping a module changes its path."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return paths
