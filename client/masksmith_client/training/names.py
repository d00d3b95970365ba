"""Paths of a model's modules, and names of its parameters in its state dict."""

from __future__ import annotations

import torch


def paths_by_module(model: torch.nn.Module) -> dict[int, list[str]]:
    """Return the current paths of a model's modules, by the module's id; wrapping a module changes its path."""
    paths: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    return paths


def state_names_by_parameter(model: torch.nn.Module) -> dict[int, list[str]]:
    """Return the names of a model's parameters in its state dict, by the parameter's id.

    They differ from the paths of the parameters if a class or a hook renames entries, as activation checkpointing and
    Lightning Fabric do. The result is empty if the model's own `state_dict` does not take `keep_vars`.
    """
    names: dict[int, list[str]] = {}
    try:
        state = model.state_dict(keep_vars=True)
    except TypeError:
        return names
    for name, value in state.items():
        names.setdefault(id(value), []).append(name)
    return names
