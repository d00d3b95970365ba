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
"""Attributes that hold A `[rank, in]` and B `[out, rank]`: in peft and loralib, and in torchtune."""
SMALLEST = 1e-45
"""The smallest positive float32, against a division by zero."""


@dataclass(frozen=True)
class Adapter:
    """One adapter of a layer: it adds `scaling * up @ down` to the weight `[out, in]`.

    Attributes:
        down: A `[rank, in]`.
        up: B `[out, rank]`.
        scaling: The factor of the product.
    """

    down: Tensor
    up: Tensor
    scaling: float

    def product(self) -> Tensor:
        """Return the matrix `[out, in]` that is added to the weight; all ranks must call this together."""
        return self.scaling * (gathered(self.up.detach()) @ gathered(self.down.detach()))


@torch.no_grad()
def merge(model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> dict[str, float]:
    """Add the active adapters to the dense weights, and set their B to zero; an error leaves the model unchanged.

    Returns:
        For each weight that has an adapter, the share of the adapter's squared norm in pruned entries, which is lost.

    Raises:
        InputError: If no masked layer has an adapter, or an adapter cannot be merged.
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
    lost_shares = {}
    for layer, adapters, change in merges:
        weight = layer.weight.detach()
        kept = layer.whole_kept().to(change.device)
        pruned_square, square = (change * ~kept).square().sum(), change.square().sum()
        lost_shares[layer.name] = float(pruned_square / square.clamp_min(SMALLEST))
        weight.add_(as_sharded(change.to(weight.dtype), weight))
        for adapter in adapters:
            adapter.up.detach().zero_()
    return lost_shares


def adapters_of(holder: torch.nn.Module, name: str) -> Iterator[Adapter]:
    """Iterate over the active adapters of a module.

    Raises:
        InputError: If an adapter is more than a scaled product of two matrices, or merged already.
    """
    names = next(((a, b) for a, b in NAMES if hasattr(holder, a) and hasattr(holder, b)), None)
    if names is None:
        return
    if (reason := _unsupported_reason(holder)) is not None:
        raise InputError(f"the adapter of {name!r} cannot be merged: {reason}")
    down, up = getattr(holder, names[0]), getattr(holder, names[1])
    for key in _active(holder, down):
        matrices = [_matrix(_item(factor, key)) for factor in (down, up)]
        if any(matrix is None for matrix in matrices):
            raise InputError(
                f"the adapter of {name!r} cannot be merged: its A and B are not two matrices, or have a bias"
            )
        yield Adapter(matrices[0], matrices[1], _scaling(holder, key, matrices[0], name))  # type: ignore[arg-type]


def _holders(model: torch.nn.Module) -> dict[int, list[torch.nn.Module]]:
    """Return the modules that may hold a layer's adapter: the layer, and a wrapper of it; by the layer's id."""
    holders: dict[int, list[torch.nn.Module]] = {}
    for module in model.modules():
        holders.setdefault(id(module), []).append(module)
        base = module._modules.get("base_layer")
        if base is not None:
            holders.setdefault(id(base), []).append(module)
    return holders


def _change(layer: MaskedLayer, adapters: Iterable[Adapter]) -> Tensor:
    """Return the sum of the adapters' products, in the shape of the weight."""
    products = [adapter.product() for adapter in adapters]
    change = torch.stack(products).sum(0)
    change = change.t() if is_conv1d(layer.module) else change
    if tuple(change.shape) != layer.shape:
        raise InputError(
            f"the adapter of {layer.name!r} has shape {list(change.shape)}, the weight {list(layer.shape)}"
        )
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
    """Return the names of the active adapters; None for the single adapter of a module without names."""
    if not isinstance(down, Mapping | torch.nn.ModuleDict | torch.nn.ParameterDict):
        return [None]
    active = getattr(holder, "active_adapters", None)
    if active is None:
        return list(down.keys())
    names = [active] if isinstance(active, str) else active
    return [name for name in names if name in down]


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
    """Return the scaling, or alpha divided by the rank if the module has only alpha."""
    value = getattr(holder, "scaling", None)
    value = value.get(key) if isinstance(value, Mapping) else value
    if isinstance(value, int | float):
        return float(value)
    alpha = getattr(holder, "alpha", None)
    if isinstance(alpha, int | float) and down is not None:
        return float(alpha) / down.shape[0]
    raise InputError(f"the adapter of {name!r} cannot be merged: its module has neither a scaling nor an alpha")
