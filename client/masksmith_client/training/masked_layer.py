"""A masked layer: a weight, the modules that use it, and its mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from masksmith.layouts import Layout
from masksmith_client._errors import InputError

from .masking import Masking


@dataclass(eq=False)
class MaskedLayer:
    """A weight and its mask.

    Attributes:
        name: The weight's name in the model, such as `encoder.0.weight`.
        modules: The modules that use it, by path; several if it is shared.
        weight: The dense weight; with masks applied in place, the masked weight.
        masking: Its mask, as a parametrization.
        rank_above: A score that exceeds the sum of all scores of a tile if each is at most 1.
        layout: How the weight is made of matrices; None if it is one `[out, in]` or a convolution.
    """

    name: str
    modules: dict[str, torch.nn.Module]
    weight: torch.nn.Parameter
    masking: Masking
    rank_above: float = 2.0
    layout: Layout | None = None
    _hook: torch.utils.hooks.RemovableHandle | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, and of the mask."""
        return tuple(self.masking.mask.shape)

    def attach(self, *, in_place: bool) -> None:
        """Register the mask: as a gradient hook if `in_place`, else as a parametrization of the weight."""
        if in_place:
            self._hook = self.weight.register_hook(self._dense_gradient)  # type: ignore[no-untyped-call]
        else:
            for module in self.modules.values():
                parametrize.register_parametrization(module, "weight", self.masking)

    def detach(self) -> None:
        """Remove hook or parametrization; the module keeps the masked weight."""
        if self._hook is not None:
            self._hook.remove()
            return
        for module in self.modules.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def check(self, model: torch.nn.Module) -> None:
        """Check that the layer is still part of the model.

        Raises:
            InputError: If the module was replaced, or its weight changed shape.
        """
        if tuple(self.weight.shape) != self.shape:
            raise InputError(f"{self.name!r} changed shape from {list(self.shape)} to {list(self.weight.shape)}")
        for path, module in self.modules.items():
            try:
                current = model.get_submodule(path)
            except AttributeError:
                current = None
            if current is not module:
                raise InputError(f"layer {path!r} was replaced after it was masked: create a new Sparsifier")

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Write zeros into the pruned entries of the weight."""
        self._move_mask()
        if not self.masking.dense:
            self.weight.mul_(self.masking.mask)

    def _move_mask(self) -> None:
        # A parametrization moves with the model; a mask applied in place is not part of the model.
        if self.masking.mask.device != self.weight.device:
            self.masking.to(self.weight.device)

    def _dense_gradient(self, gradient: Tensor) -> Tensor:
        self._move_mask()
        self.masking.record_gradient(gradient)
        masking = self.masking
        return gradient if masking.dense else masking.method.gradient(gradient, self.weight, masking.mask)
