"""Low-rank adapters (LoRA) of masked layers: find their A, B and scaling, and merge them within the pattern.

A layer with an adapter computes `(m * W) x + s B A x`. Merged by its own library, `m * W + s B A` is dense. Here it
becomes `m * (W + s B A)`, which has the pattern; `B` becomes zero, so the adapter is neutral and can be removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from masksmith.layouts import is_conv1d
from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .sharding import as_sharded, gathered

NAMES = (("lora_A", "lora_B"), ("lora_a", "lora_b"))
"""Attributes that hold A `[rank, in]` and B `[out, rank]`: peft's and loralib's, torchtune's."""


@dataclass(frozen=True)
class Adapter:
    """One adapter of a layer: it adds `scaling * up @ down` to the weight `[out, in]`."""

    down: Tensor
    up: Tensor
    scaling: float

    def product(self) -> Tensor:
        """Return the matrix that is added to the weight."""
        return self.scaling * (gathered(self.up.detach()) @ gathered(self.down.detach()))


@torch.no_grad()
def merge(model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> dict[str, float]:
    """Add the active adapters to the dense weights, and set their B to zero; an error leaves the model unchanged.

    Returns:
        For each weight that has an adapter, the share of the adapter's squared norm in pruned entries, which is lost.

    Raises:
        InputError: If no masked layer has an adapter, or one cannot be merged.
    """
    holders = _holders(model)
    merges = []
    for layer in layers:
        adapters = [
            adapter for holder in holders.get(id(layer.module), ()) for adapter in adapters_of(holder, layer.name)
        ]
        if adapters:
            merges.append((layer, adapters, _change(layer, adapters)))
    if not merges:
        raise InputError("no masked layer has an adapter: modules with lora_A, lora_B and a scaling are known")
    lost = {}
    for layer, adapters, change in merges:
        weight = layer.weight.detach()
        kept = layer.whole_kept().to(change.device)
        lost[layer.name] = float((change * ~kept).square().sum() / change.square().sum().clamp_min(1e-45))
        weight.add_(as_sharded(change.to(weight.dtype), weight))
        for adapter in adapters:
            adapter.up.detach().zero_()
    return lost


def adapters_of(holder: torch.nn.Module, name: str) -> Iterator[Adapter]:
    """Iterate over the active adapters of a module.

    Raises:
        InputError: If one is more than a scaled product of two matrices, or merged already.
    """
    names = next((names for names in NAMES if all(hasattr(holder, each) for each in names)), None)
    if names is None:
        return
    if (reason := _unsupported_reason(holder)) is not None:
        raise InputError(f"the adapter of {name!r} cannot be merged: {reason}")
    down, up = (getattr(holder, each) for each in names)
    for key in _active(holder, down):
        matrices = [_matrix(_item(each, key)) for each in (down, up)]
        if any(matrix is None for matrix in matrices):
            raise InputError(
                f"the adapter of {name!r} cannot be merged: its A and B are not two matrices, or have a bias"
            )
        yield Adapter(matrices[0], matrices[1], _scaling(holder, key, matrices[0], name))  # type: ignore[arg-type]


def _holders(model: torch.nn.Module) -> dict[int, list[torch.nn.Module]]:
    """Return the modules that may hold a layer's adapter: itself, and the one that wraps it; by the layer's id."""
    holders: dict[int, list[torch.nn.Module]] = {}
    for module in model.modules():
        holders.setdefault(id(module), []).append(module)
        base = module._modules.get("base_layer")
        if base is not None:
            holders.setdefault(id(base), []).append(module)
    return holders


def _change(layer: MaskedLayer, adapters: Iterable[Adapter]) -> Tensor:
    products = [adapter.product() for adapter in adapters]
    change = torch.stack(products).sum(0)
    change = change.t() if is_conv1d(layer.module) else change
    if tuple(change.shape) != layer.shape:
        raise InputError(f"the adapter of {layer.name!r} gives {list(change.shape)}, the weight is {list(layer.shape)}")
    if not bool(change.isfinite().all()):
        raise InputError(f"the adapter of {layer.name!r} has NaN or infinite entries")
    return change


def _unsupported_reason(holder: Any) -> str | None:
    if getattr(holder, "merged", False) is True:
        return "it is merged already, and the weight is dense: unmerge it first"
    for member, text in (
        ("lora_magnitude_vector", "DoRA scales the whole weight"),
        ("lora_variant", "it is a variant of LoRA that is more than B A"),
    ):
        value = getattr(holder, member, None)
        if value is not None and (not isinstance(value, Mapping | torch.nn.ModuleDict) or len(value) > 0):
            return text
    return None


def _active(holder: Any, down: object) -> list[str | None]:
    """Return the names of the active adapters; None for the only one of a module without names."""
    if not isinstance(down, Mapping | torch.nn.ModuleDict | torch.nn.ParameterDict):
        return [None]
    active = getattr(holder, "active_adapters", None)
    active = list(down.keys()) if active is None else [active] if isinstance(active, str) else list(active)
    return [key for key in active if key in down]


def _item(value: Any, key: str | None) -> Any:
    return value if key is None else value[key]


def _matrix(value: Any) -> Tensor | None:
    """Return the matrix of a parameter or of a linear layer without bias."""
    if isinstance(value, torch.nn.Module):
        if getattr(value, "bias", None) is not None:
            return None
        value = getattr(value, "weight", None)
    return value if isinstance(value, Tensor) and value.ndim == 2 else None


def _scaling(holder: Any, key: str | None, down: Tensor | None, name: str) -> float:
    """Return the scaling, or alpha divided by the rank where the module has alpha only."""
    value = getattr(holder, "scaling", None)
    value = value.get(key) if isinstance(value, Mapping) else value
    if isinstance(value, int | float):
        return float(value)
    alpha = getattr(holder, "alpha", None)
    if isinstance(alpha, int | float) and down is not None:
        return float(alpha) / down.shape[0]
    raise InputError(f"the adapter of {name!r} cannot be merged: its module has neither a scaling nor an alpha")
