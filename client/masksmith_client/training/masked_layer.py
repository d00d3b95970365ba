"""One masked layer: a weight, the modules that it belongs to, and its mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from masksmith_client._errors import InputError

from .masking import Masking


@dataclass(eq=False)
class MaskedLayer:
    """A weight and its mask.

    Attributes:
        name: The weight's name in the model, such as `encoder.0.weight`.
        modules: The modules that it belongs to, by path; more than one where it is shared.
        weight: The dense weight, or the masked one where masks are applied in place.
        masking: Its mask.
        rank_above: More than the scores of a tile's entries add up to, each at most 1.
    """

    name: str
    modules: dict[str, torch.nn.Module]
    weight: torch.nn.Parameter
    masking: Masking
    rank_above: float = 2.0
    _hook: torch.utils.hooks.RemovableHandle | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, and of the mask."""
        return tuple(self.masking.mask.shape)

    def attach(self, *, in_place: bool) -> None:
        """Put the mask between the model and its weight."""
        if in_place:
            self._hook = self.weight.register_hook(self._cut)  # type: ignore[no-untyped-call]
        else:
            for module in self.modules.values():
                parametrize.register_parametrization(module, "weight", self.masking)

    def detach(self) -> None:
        """Leave the masked weight behind, and nothing else."""
        if self._hook is not None:
            self._hook.remove()
            return
        for module in self.modules.values():
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def check(self, model: torch.nn.Module) -> None:
        """Refuse a layer that is no longer what it was.

        Raises:
            InputError: If it was replaced, or its weight changed shape.
        """
        if tuple(self.weight.shape) != self.shape:
            raise InputError(f"{self.name!r} changed shape from {list(self.shape)} to {list(self.weight.shape)}")
        for path, module in self.modules.items():
            try:
                current = model.get_submodule(path)
            except AttributeError:
                current = None
            if current is not module:
                raise InputError(f"layer {path!r} is not the one that was masked: make a new Sparsifier")

    @torch.no_grad()
    def cut(self) -> None:
        """Write zeros where the mask drops the weight."""
        self._follow()
        if not self.masking.dense:
            self.weight.mul_(self.masking.mask)

    def _follow(self) -> None:
        # As a parametrization the mask moves with the model; in place it is no part of it.
        if self.masking.mask.device != self.weight.device:
            self.masking.to(self.weight.device)

    def _cut(self, gradient: Tensor) -> Tensor:
        self._follow()
        self.masking.see(gradient)
        masking = self.masking
        return gradient if masking.dense else masking.method.gradient(gradient, self.weight, masking.mask)
