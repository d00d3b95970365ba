"""Wrappers around a model or its parts: plain names without their prefixes, and the ones that are refused."""

from __future__ import annotations

import torch
from torch import Tensor

from masksmith_client._errors import InputError

from .masking import Masking

PREFIXES = {"_orig_mod", "_checkpoint_wrapped_module"}
"""Parts of names that `torch.compile` and activation checkpointing add."""
WRAPPERS = {"DistributedDataParallel": "module", "DataParallel": "module", "AveragedModel": "module"}
WRAPPERS["OptimizedModule"] = "_orig_mod"


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model inside `torch.compile`, DistributedDataParallel, DataParallel and AveragedModel.

    Raises:
        InputError: If it is no module, or sharded by FSDP1.
    """
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"model={model!r} is not a torch.nn.Module")
    while type(model).__name__ in WRAPPERS:
        model = getattr(model, WRAPPERS[type(model).__name__])
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise InputError(
            "FullyShardedDataParallel (FSDP1) flattens weights, so that no layer can be masked: use fully_shard() "
            "after the Sparsifier"
        )
    return model


def plain_name(name: str) -> str:
    """Return a module's or weight's name without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in PREFIXES)


def plain_state(model: torch.nn.Module, *, dense: bool) -> dict[str, Tensor]:
    """Return a model's state dict in plain names, parametrized weights as computed with, or the dense ones."""
    state: dict[str, Tensor] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for name, value in model.state_dict().items():
        path, mark, rest = name.partition(".parametrizations.")
        if not mark and name.startswith("parametrizations."):
            path, mark, rest = "", "parametrizations.", name.removeprefix("parametrizations.")
        attribute, _, inner = rest.partition(".")
        if not mark or not _is_masked(modules[path], attribute):
            state[plain_name(name)] = value
        elif inner == "original":
            computed = value if dense else getattr(modules[path], attribute).detach()
            state[plain_name(f"{path}.{attribute}" if path else attribute)] = computed
    return state


def _is_masked(module: torch.nn.Module, attribute: str) -> bool:
    return any(isinstance(one, Masking) for one in module.parametrizations[attribute])  # type: ignore[index]
