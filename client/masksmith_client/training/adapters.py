"""Find the low-rank adapters (LoRA) of masked layers, and merge them into the weights within the pattern.

A layer with an adapter computes `(m * W) x + s B A x` for inputs `x`, with the mask `m`, the dense weight `W`, and the
adapter's scaling `s` and factors `B` and `A`. The adapter's own library merges weight and adapter to `m * W + s B A`,
which is dense. Here the layer's weight becomes `m * (W + s B A)`, which has the pattern, and `B` becomes zero, so that
the adapter adds nothing and can be removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from masksmith.layouts import is_transformers_conv1d
from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .sharding import as_sharded, gathered

FACTOR_ATTRIBUTES = (("lora_A", "lora_B"), ("lora_a", "lora_b"))
"""Attributes that hold A `[rank, in]` and B `[out, rank]`: in peft and loralib (first pair), in torchtune (second)."""
MIN_SQUARED_NORM = 1e-45
"""Lower limit of a squared norm that is used as a divisor, since it may be 0."""


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
    """Add the active adapters to the weights, and set B of these adapters to zero; the masks do not change.

    If masks are applied in place, pruned entries of the weights are no longer zero then; the caller must set them to
    zero.

    Returns:
        By the name of each weight with active adapters: the share of the squared norm of the adapters' sum that is in
        pruned entries. The masked weight does not contain this share.

    Raises:
        InputError: If no masked layer has an active adapter, or an adapter cannot be merged. The model is unchanged.
    """
    holders = _holders(model)
    merges = []
    for layer in layers:
        modules = layer.modules.values()
        layer_holders = {id(holder): holder for module in modules for holder in holders.get(id(module), ())}
        adapters = [adapter for holder in layer_holders.values() for adapter in adapters_of(holder, layer.name)]
        if adapters:
            _check_not_shared(layer)
            merges.append((layer, adapters, _change(layer, adapters)))
    if not merges:
        raise InputError("no masked layer has an active adapter: modules with lora_A, lora_B and a scaling are known")
    lost_shares = {}
    for layer, adapters, change in merges:
        weight = layer.weight.detach()
        kept = layer.whole_kept().to(change.device)
        squares = change.double().square()
        lost_shares[layer.name] = float((squares * ~kept).sum() / squares.sum().clamp_min(MIN_SQUARED_NORM))
        weight.add_(as_sharded(change.to(weight.dtype), weight))
        for adapter in adapters:
            adapter.up.detach().zero_()
    return lost_shares


def refuse_merged(model: torch.nn.Module, layers: Iterable[MaskedLayer]) -> None:
    """Raise `InputError` if an adapter is merged into the weight of a layer, by its own library or in `eval()`.

    The weight then contains the adapter, also in pruned entries; when the adapter is unmerged, it is subtracted from
    weights that may have been masked in the meantime.
    """
    refuse_merged_modules(model, ((layer.name, layer.modules) for layer in layers))


def refuse_merged_modules(
    model: torch.nn.Module, layers: Iterable[tuple[str, Mapping[str, torch.nn.Module]]], of: str = ""
) -> None:
    """Raise `InputError` as `refuse_merged` does.

    Args:
        model: A model.
        layers: Names of weights, each with the modules of the model that use the weight, by path.
        of: Prefix of the word "layer" in messages, such as `"the copy's "`.
    """
    merged_ids = {id(part) for module in model.modules() if _is_merged(module) for part in _bases_of(module)}
    for name, modules in layers if merged_ids else ():
        path = next((path for path, module in modules.items() if id(module) in merged_ids), None)
        if path is not None:
            raise InputError(
                f"{of}layer {path!r} has an adapter, and it is merged already, so the weight {name!r} is dense: "
                "unmerge it first (loralib's layers: train()), then use merge_adapters() of the Sparsifier"
            )


def _is_merged(module: torch.nn.Module) -> bool:
    """Whether a module has a merged adapter; loralib's modules of rank 0 have none, but set `merged` in `eval()`."""
    # `hasattr` of the class first: a module without the attribute is the common case, and its `getattr` is slow.
    has_attribute = "merged" in vars(module) or hasattr(type(module), "merged")
    return has_attribute and getattr(module, "merged", False) is True and _has_adapter(module)


def _has_adapter(module: torch.nn.Module) -> bool:
    return "base_layer" in module._modules or any(hasattr(module, attribute) for attribute, _ in FACTOR_ATTRIBUTES)


def _bases_of(holder: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Iterate over the modules whose weight a merged adapter may be in: the holder of the adapter, and its children."""
    yield holder
    yield from holder.children()


def adapters_of(holder: torch.nn.Module, name: str) -> Iterator[Adapter]:
    """Iterate over the active adapters of a module.

    Args:
        holder: The masked layer's module, or the module that wraps it.
        name: Name of the masked weight, for messages.

    Raises:
        InputError: If an adapter is not a scaled product of two matrices whose shapes match; if it has no known
            scaling; or if it is merged already.
    """
    attributes = next(((a, b) for a, b in FACTOR_ATTRIBUTES if hasattr(holder, a) and hasattr(holder, b)), None)
    if attributes is None:
        return
    if (reason := _unsupported_reason(holder)) is not None:
        raise InputError(f"the adapter of {name!r} cannot be merged: {reason}")
    factors = [getattr(holder, attribute) for attribute in attributes]
    for key in _active_keys(holder, factors[0]):
        down, up = (_matrix(_item(factor, key)) for factor in factors)
        if down is None or up is None:
            raise InputError(
                f"the adapter of {name!r} cannot be merged: its A and B are not two matrices, or have a bias"
            )
        if down.shape[0] != up.shape[1]:
            raise InputError(
                f"the adapter of {name!r} cannot be merged: A has shape {list(down.shape)} and B {list(up.shape)}, "
                "expected [rank, in] and [out, rank]"
            )
        yield Adapter(down, up, _scaling(holder, key, down.shape[0], name))


def _holders(model: torch.nn.Module) -> dict[int, list[torch.nn.Module]]:
    """Return, by the id of each module, the modules that may hold its adapters: itself, and those that wrap it.

    A wrapper has the module as its `base_layer`.
    """
    holders: dict[int, list[torch.nn.Module]] = {}
    for module in model.modules():
        holders.setdefault(id(module), []).append(module)
        base = module._modules.get("base_layer")
        if base is not None:
            holders.setdefault(id(base), []).append(module)
    return holders


def _check_not_shared(layer: MaskedLayer) -> None:
    """Raise `InputError` if several modules share the weight: the adapter of one would be merged into all of them."""
    if len(layer.modules) > 1:
        paths = " and ".join(map(repr, layer.modules))
        raise InputError(f"the adapter of {layer.name!r} cannot be merged: {paths} share the weight")


def _change(layer: MaskedLayer, adapters: Iterable[Adapter]) -> Tensor:
    """Return the sum of the products of a layer's adapters, in the shape of the weight; all ranks call this together.

    Raises:
        InputError: If a product has another shape than the weight, or the sum has an entry that is not finite.
    """
    products = [adapter.product() for adapter in adapters]
    if is_transformers_conv1d(layer.module):  # Its weight is `[in, out]`.
        products = [product.t() for product in products]
    for product in products:
        if tuple(product.shape) != layer.shape:
            raise InputError(
                f"the adapter of {layer.name!r} has shape {list(product.shape)}, the weight {list(layer.shape)}"
            )
    change = torch.stack(products).sum(0)
    if not bool(change.isfinite().all()):
        raise InputError(f"the adapter of {layer.name!r} has NaN or infinite entries")
    return change


def _unsupported_reason(holder: Any) -> str | None:
    """Return a reason, other than the form of A and B, why a module's adapters cannot be merged, or None."""
    if getattr(holder, "merged", False) is True:
        return "it is merged already, and the weight is dense: unmerge it first"
    base = holder._modules.get("base_layer") or holder
    if getattr(holder, "fan_in_fan_out", False) is True and not is_transformers_conv1d(base):
        return "its weight is transposed (fan_in_fan_out)"
    for member, text in (
        ("lora_magnitude_vector", "DoRA scales the whole weight"),
        ("lora_variant", "it is a variant of LoRA that adds something other than the product B A"),
    ):
        value = getattr(holder, member, None)
        # Layers of peft have these as mappings by the name of the adapter, empty for plain LoRA.
        if value is not None and (not isinstance(value, Mapping | torch.nn.ModuleDict) or len(value) > 0):
            return text
    return None


def _active_keys(holder: Any, factor: object) -> list[str | None]:
    """Return the names of the module's active adapters, or of all if it does not say which are active.

    A module without names of adapters has a single adapter, with the name None.

    Args:
        holder: The module.
        factor: The attribute with the A of all adapters by name, or with the A of the single adapter.
    """
    if not isinstance(factor, Mapping | torch.nn.ModuleDict | torch.nn.ParameterDict):
        return [None]
    active = getattr(holder, "active_adapters", None)
    if active is None:
        return list(factor.keys())
    names = [active] if isinstance(active, str) else active
    return [name for name in names if name in factor]


def _item(value: Any, key: str | None) -> Any:
    return value if key is None else value[key]


def _matrix(value: Any) -> Tensor | None:
    """Return a value that is a matrix, or the weight of a module without bias if that is a matrix; else None."""
    if isinstance(value, torch.nn.Module):
        if getattr(value, "bias", None) is not None:
            return None
        value = getattr(value, "weight", None)
    return value if isinstance(value, Tensor) and value.ndim == 2 else None


def _scaling(holder: Any, key: str | None, rank: int, name: str) -> float:
    """Return the scaling, or alpha divided by the rank if the module has only alpha.

    Raises:
        InputError: If the module has neither as a number.
    """
    value = getattr(holder, "scaling", None)
    value = value.get(key) if isinstance(value, Mapping) else value
    if isinstance(value, int | float):
        return float(value)
    alpha = getattr(holder, "alpha", None)
    if isinstance(alpha, int | float):
        return float(alpha) / rank
    raise InputError(f"the adapter of {name!r} cannot be merged: its module has neither a scaling nor an alpha")
