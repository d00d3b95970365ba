"""A masked layer: the modules that use a weight, and its mask. The weight is looked up in its module at every use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from masksmith.layouts import Layout
from masksmith_client._errors import InputError

from .masking import Masking
from .sharding import is_sharded, like, zero_outside


@dataclass(eq=False)
class MaskedLayer:
    """A weight and its mask.

    Attributes:
        name: The weight's name in the model, such as `encoder.0.weight`.
        modules: The modules that use it, by path; several if it is shared.
        masking: Its mask, as a parametrization.
        rank_above: A score that exceeds the sum of all scores of a tile if each is at most 1.
        layout: How the weight is made of matrices; None if it is one `[out, in]` or a convolution.
        attribute: The weight's name in its modules.
    """

    name: str
    modules: dict[str, torch.nn.Module]
    masking: Masking
    rank_above: float = 2.0
    layout: Layout | None = None
    attribute: str = "weight"
    _hook: torch.utils.hooks.RemovableHandle | None = field(default=None, repr=False)
    _hooked: torch.nn.Parameter | None = field(default=None, repr=False)
    _loading: list[torch.utils.hooks.RemovableHandle] = field(default_factory=list, repr=False)
    _orders: dict[torch.nn.Module, list[str]] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, and of the mask."""
        return tuple(self.masking.mask.shape)

    @property
    def weight(self) -> torch.nn.Parameter:
        """The present dense weight of the module; with masks applied in place, the masked weight."""
        return dense_weight(next(iter(self.modules.values())), self.attribute)

    def attach(self, *, in_place: bool) -> None:
        """Register the mask: as a gradient hook if `in_place`, else as a parametrization of the weight."""
        if in_place:
            self._hook_gradient()
            return
        for module in self.modules.values():
            self._orders[module] = list(module._parameters)
            parametrize.register_parametrization(module, self.attribute, self.masking)
            self._loading.append(module.register_load_state_dict_pre_hook(self._before_load))  # type: ignore[no-untyped-call]
        self.masking.belongs_to(next(iter(self.modules.values())), self.attribute)

    def detach(self, *, masked: bool = True) -> None:
        """Remove hook or parametrization; the module keeps the masked weight, or the dense one unless `masked`."""
        for handle in (*self._loading, *([] if self._hook is None else [self._hook])):
            handle.remove()
        for module, order in self._orders.items():
            remove_masking(module, self.attribute, order, masked=masked)

    def order(self, module: torch.nn.Module) -> list[str]:
        """Return the order of a module's parameters before it was masked."""
        return self._orders.get(module, [])

    def check(self, model: torch.nn.Module) -> None:
        """Check that the layer is still part of the model, and that its modules compute with this mask.

        Raises:
            InputError: If the module or the parametrization was replaced, or the weight changed shape.
        """
        for path, module in self.modules.items():
            if _submodule(model, path) is not module:
                raise InputError(f"layer {path!r} was replaced after it was masked: create a new Sparsifier")
            if not self.is_in(module):
                raise InputError(f"the mask of layer {path!r} was removed by something else: create a new Sparsifier")
        weight = self.weight
        if any(dense_weight(module, self.attribute) is not weight for module in self.modules.values()):
            raise InputError(f"{self.name!r} was shared by {', '.join(map(repr, self.modules))} and no longer is")
        if tuple(weight.shape) != self.shape:
            raise InputError(f"{self.name!r} changed shape from {list(self.shape)} to {list(weight.shape)}")
        if weight.is_meta:
            raise InputError(f"{self.name!r} has no data any more (it is on the meta device)")
        if self._hook is not None and is_sharded(weight):
            raise InputError(f"{self.name!r} is sharded: in_place=True cannot mask it, leave in_place out")

    def is_in(self, module: torch.nn.Module) -> bool:
        """Whether the module computes with this mask."""
        if self._hook is not None:
            return self.attribute in module._parameters
        return parametrize.is_parametrized(module, self.attribute) and any(
            one is self.masking
            for one in module.parametrizations[self.attribute]  # type: ignore[index]
        )

    @torch.no_grad()
    def density(self, kept: Tensor) -> float:
        """Return the share of entries that the mask keeps or that are non-zero in a module all the same."""
        for module in self.modules.values():
            if self._hook is not None or not self.is_in(module):
                weight = getattr(module, self.attribute)
                kept = like(kept.to(weight.device), weight) | (weight != 0)
        share = kept.float().mean()
        return float(share.full_tensor() if is_sharded(share) else share)  # type: ignore[attr-defined]

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Write zeros into the pruned entries of the weight, which may be another parameter than before."""
        if self._hook is not None and self._hooked is not self.weight:
            self._hook.remove()
            self._hook_gradient()
        self._move_mask()
        zero_outside(self.weight, self.masking.mask)

    def _hook_gradient(self) -> None:
        self._hooked = self.weight
        self._hook = self._hooked.register_hook(self._dense_gradient)  # type: ignore[no-untyped-call]

    def _move_mask(self) -> None:
        # A parametrization moves with the model; a mask applied in place is not part of the model.
        if self.masking.mask.device != self.weight.device:
            self.masking.to(self.weight.device)

    def _dense_gradient(self, gradient: Tensor) -> Tensor:
        self._move_mask()
        self.masking.record_gradient(gradient)
        return self.masking.method.gradient(gradient, self.weight, self.masking.mask)

    def _before_load(self, module: torch.nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
        """Let a weight in its plain name be loaded; it is computed with as it is until the next masks."""
        plain = f"{prefix}{self.attribute}"
        if plain in state:
            state[f"{prefix}parametrizations.{self.attribute}.original"] = state.pop(plain)
            for name, parameter in self.masking.named_parameters():
                state.setdefault(f"{prefix}parametrizations.{self.attribute}.0.{name}", parameter.detach())
            self.masking.make_dense()


def dense_weight(module: torch.nn.Module, attribute: str) -> torch.nn.Parameter:
    """Return the parameter behind a weight, parametrized or not."""
    if parametrize.is_parametrized(module, attribute):
        return cast("torch.nn.Parameter", module.parametrizations[attribute].original)  # type: ignore[index,union-attr]
    return module.get_parameter(attribute)


@torch.no_grad()
def remove_masking(module: torch.nn.Module, attribute: str, order: list[str], *, masked: bool) -> None:
    """Remove a weight's parametrization and give its parameters back their order, by which optimizers store state."""
    if not parametrize.is_parametrized(module, attribute):
        return
    if masked:
        computed = getattr(module, attribute).detach().clone()
        dense_weight(module, attribute).copy_(computed)
    parametrize.remove_parametrizations(module, attribute, leave_parametrized=False)
    for name in (*order, *[name for name in module._parameters if name not in order]):
        if name in module._parameters:
            module._parameters[name] = module._parameters.pop(name)


def _submodule(model: torch.nn.Module, path: str) -> torch.nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
