"""A masked layer: where a weight is in the model, and how its mask is applied, checked and baked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from masksmith.layouts import Layout
from masksmith_client._errors import InputError

from .lost_writes import take_lost_write
from .masked_parameter import attach, detach, mark_in_place, masking_of
from .masking import Masking
from .sharding import gathered, gathered_mask, is_dtensor, local
from .unsupported import missing_reason, storage_reason


@dataclass(eq=False)
class MaskedLayer:
    """A weight and its mask. The weight is looked up in its module at every use, since it may be replaced or sharded.

    Attributes:
        name: The weight's name in the model, such as `encoder.0.weight`.
        modules: The modules that use the weight, by path; several if they share it.
        masking: The module that holds the mask and applies it.
        parameter: The weight's name in its modules.
        survivor_score: A score for entries that the next mask must keep, if all other scores are at most 1. It exceeds
            the sum of all other scores of a tile; for patterns without tiles, it exceeds the largest other score.
        layout: How the weight is made of matrices; None if it is one matrix `[out, in]` or a convolution.
        gradient_scale: The factor by which gradients are multiplied when the optimizer's step begins, see
            `torch.amp.GradScaler`; negative if the optimizer maximises (`maximize=True`).
    """

    name: str
    modules: dict[str, torch.nn.Module]
    masking: Masking
    parameter: str = "weight"
    survivor_score: float = 2.0
    layout: Layout | None = None
    gradient_scale: Tensor | float = 1.0
    _in_place: bool = field(default=False, repr=False)
    _hook: torch.utils.hooks.RemovableHandle | None = field(default=None, repr=False)
    _hooked_weight: Tensor | None = field(default=None, repr=False)

    @property
    def module(self) -> torch.nn.Module:
        """The first of the modules."""
        return next(iter(self.modules.values()))

    @property
    def weight(self) -> torch.nn.Parameter:
        """The dense weight; with masks applied in place, the masked weight; a DTensor if it is sharded.

        Raises:
            InputError: If the module has no such parameter any more.
        """
        weight = self.module._parameters.get(self.parameter)
        if weight is None:
            raise InputError(f"{self.name!r} is missing: {missing_reason(self.module, self.parameter)}")
        return weight

    @property
    def mask(self) -> Tensor:
        """The mask on the weight's device, sharded as the weight is."""
        return self.masking.mask_of(self.weight)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, and of the mask."""
        return self.masking.shape

    def whole_mask(self) -> Tensor:
        """Divide the mask among ranks as the weight is divided now, and return the whole mask, gathered if sharded."""
        self.masking.follow_sharding(self.weight)
        return self.masking.whole_mask()

    def whole_kept(self) -> Tensor:
        """Return the whole mask of the entries that the layer computes with, gathered if it is sharded."""
        return gathered_mask(self.masking.method.kept(self))

    def whole_weight(self) -> Tensor:
        """Return the whole weight, gathered from all ranks if it is sharded."""
        return gathered(self.weight.detach())

    @torch.no_grad()
    def masked_weight(self) -> Tensor:
        """Return the whole weight that the layer computes with, gathered from all ranks if it is sharded."""
        weight = self.weight.detach()
        if not self._in_place:
            return gathered(self.masking.with_zeros(weight))
        return gathered(weight if self.masking.dense else weight.masked_fill(~self.mask, 0))

    @torch.no_grad()
    def density(self, model: torch.nn.Module) -> float:
        """Return the share of entries that are not zero in the weight that the model computes with."""
        weight = getattr(self._current_module(model), self.parameter, None)
        weight = (self.weight if weight is None else weight).detach()
        return float(gathered((weight != 0).sum()).item()) / max(1, weight.numel())

    def _current_module(self, model: torch.nn.Module) -> torch.nn.Module:
        """Return the first module if the model contains it; else the one that is now at its path, if there is one."""
        path, module = next(iter(self.modules.items()))
        return module if _contains(model, path, module) else dict(model.named_modules()).get(path, module)

    def attach(self, *, in_place: bool) -> None:
        """Make the modules compute with the masked weight, or, if `in_place`, mask the gradient of the weight."""
        self._in_place = in_place
        if in_place:
            self._hook_gradient()
            self._mark_in_place(is_masked=True)
            return
        for module in self.modules.values():
            attach(module, self.parameter, self.masking)

    @torch.no_grad()
    def detach(self) -> None:
        """Write the masked weight into the modules, and remove the mask from them."""
        if self._hook is not None:  # The mask is in place: the pruned entries are zero already.
            self._hook.remove()
        else:
            self.weight.copy_(self.masking.with_zeros(self.weight.detach()))
        if not self._in_place:
            for module in self.modules.values():
                detach(module, self.parameter)
        self._mark_in_place(is_masked=False)

    def check_copy(self, module: torch.nn.Module) -> None:
        """Check a copy of one of the layer's modules, before masks are baked into it.

        Raises:
            InputError: If its weight is missing or has another shape, TorchScript has compiled it, or it was copied
                from a model with masks of another Sparsifier, which it still has.
        """
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(f"the copy's {self.name!r} was compiled by TorchScript: bake the masks before torch.jit")
        weight = module._parameters.get(self.parameter)
        if weight is None or tuple(weight.shape) != self.shape:
            raise InputError(f"the copy's {self.name!r} does not have shape {list(self.shape)}")
        masking = masking_of(module, self.parameter)
        if masking is not None and masking.is_copied_from_another(self.masking):
            raise InputError(
                f"the copy's {self.name!r} still has the mask of another Sparsifier, under which it was copied: copy "
                "the model again, or call bake(copy) of that Sparsifier before this one is created"
            )

    @torch.no_grad()
    def bake_into(self, modules: Sequence[torch.nn.Module]) -> None:
        """Write the masked weight into copies of the layer's modules, and remove the mask from the copies."""
        baked: list[Tensor] = []
        for module in modules:
            weight = module._parameters[self.parameter]
            assert weight is not None
            # A weight that several copies share is masked once: a second `follow_origin` would take the change of its
            # values for averaging, and replace the mask of the copy by that of the original.
            if not any(weight is each for each in baked):
                masking = masking_of(module, self.parameter) or self.masking
                masking.follow_origin()
                weight.copy_(masking.with_zeros(weight.detach()))
                baked.append(weight)
        for module in modules:
            detach(module, self.parameter)

    def check_and_adopt(self, model: torch.nn.Module) -> None:
        """Check that the layer is in the model and masked; adopt a weight that was replaced or sharded.

        Raises:
            InputError: If a module was replaced, or does not use the same weight as the others; if the mask was removed
                from a module; if the weight is missing, has no values, has another shape, or has a dtype other than
                floating point; if it was sharded after it was masked in place; or if something was written in place to
                the temporary masked weight, where it is lost.
        """
        weight = self.weight
        reason = storage_reason(weight)
        if reason is not None:
            raise InputError(f"{self.name!r} cannot be masked any more: {reason}")
        if not weight.is_floating_point():
            raise InputError(f"{self.name!r} cannot be masked any more: dtype {weight.dtype}")
        if tuple(weight.shape) != self.shape:
            raise InputError(f"{self.name!r} changed shape from {list(self.shape)} to {list(weight.shape)}")
        for path, module in self.modules.items():
            if not _contains(model, path, module):
                raise InputError(f"layer {path!r} was replaced after it was masked: create a new Sparsifier")
            if module._parameters.get(self.parameter) is not weight:
                raise InputError(f"layer {path!r} no longer shares the weight {self.name!r}: create a new Sparsifier")
            if not self._in_place and masking_of(module, self.parameter) is not self.masking:
                raise InputError(f"the mask of {self.name!r} was removed from layer {path!r}: create a new Sparsifier")
        self._check_writes()
        self.masking.follow_sharding(weight)
        if self._in_place:
            self._hook_gradient()

    def _check_writes(self) -> None:
        """Raise `InputError`, once, if values were written in place into masked values, which are temporary."""
        if take_lost_write(self.masking):
            raise InputError(self._lost_write_message("", "model"))

    def check_writes_into(self, copies: Iterable[torch.nn.Module]) -> None:
        """Raise `InputError`, once, if values were written in place into masked values of copies of the modules."""
        maskings = [masking_of(module, self.parameter) for module in copies]
        if any(masking is not None and take_lost_write(masking) for masking in maskings):
            raise InputError(self._lost_write_message("the copy's ", "copy"))

    def _lost_write_message(self, of: str, model: str) -> str:
        return (
            f"{of}{self.name!r} was written to in place, but reading it returns a temporary tensor of masked values, "
            f"so what was written is lost: write to the dense weight instead, {model}.get_parameter({self.name!r})"
        )

    def check_sharded(self) -> None:
        """Raise `InputError` if the weight was sharded, and is whole now.

        A whole weight may be a temporary copy of FSDP2, so that changes to it are lost: if the module that was passed
        to `fully_shard` is outside the model, `sharding.reshard` does not find it.
        """
        if self.masking.sharding is not None and not is_dtensor(self.weight):
            raise InputError(
                f"{self.name!r} was sharded, and is whole now: call reshard() on the module that was passed to "
                "fully_shard; if the weight is whole for good, create a new Sparsifier"
            )

    def check_restored_values(self) -> None:
        """After a state has restored the values of pruned entries, check that the weight still has these values.

        Called at each step; after the first step they are not checked again, since training changes them.

        Raises:
            InputError: If a state dict of the model, in which pruned entries are zero, was loaded after that state.
        """
        if self.masking.lacks_restored_values:
            raise InputError(
                f"the dense values of pruned entries of {self.name!r} were overwritten by the zeros of a state dict: "
                "load the model's state dict first, then the sparsifier's state"
            )
        self.masking.has_restored_values = False

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Write zeros into the pruned entries of the weight; none are pruned while the mask is ignored."""
        self._move_mask()
        if not self.masking.dense:
            self.weight.masked_fill_(~self.mask, 0)  # A product would keep NaN, and make NaN of infinity.

    def _mark_in_place(self, *, is_masked: bool) -> None:
        for module in self.modules.values():
            mark_in_place(module, self.parameter, is_masked=is_masked)

    def _move_mask(self) -> None:
        """Move the mask to the weight's device."""
        # A masking that is part of the model moves with it; with masks in place it is not part of the model.
        device = local(self.weight.detach()).device
        if self.masking.mask.device != device:
            self.masking.to(device)

    def _hook_gradient(self) -> None:
        """Move the gradient hook to the weight, unless it has the hook already.

        Raises:
            InputError: If the weight was sharded after it got the hook.
        """
        weight = self.weight
        hooked = self._hooked_weight
        if hooked is not None and is_dtensor(weight) and not is_dtensor(hooked):
            # The gradient of the previous step was not masked, and is in the optimizer's state.
            raise InputError(
                f"{self.name!r} was sharded after it was masked in place: create the Sparsifier afterwards"
            )
        if hooked is not weight:
            if self._hook is not None:
                self._hook.remove()
            self._hooked_weight = weight
            # A frozen weight may be trained later; torch registers hooks only while gradients are required.
            requires_grad = weight.requires_grad
            weight.requires_grad_(True)
            if is_dtensor(weight):
                # FSDP2 sets the reduced gradient itself, and calls only hooks of this kind.
                self._hook = weight.register_post_accumulate_grad_hook(self._mask_accumulated)  # type: ignore[no-untyped-call]
            else:
                self._hook = weight.register_hook(self._masked_gradient)  # type: ignore[no-untyped-call]
            weight.requires_grad_(requires_grad)

    def _mask_accumulated(self, weight: Tensor) -> None:
        """Record and mask `weight.grad` after gradients were added to it."""
        masking = self.masking
        if weight.grad is None:
            return
        masking.record_accumulated(weight)
        if not masking.dense:
            weight.grad = masking.method.gradient(weight.grad, weight.detach(), masking.mask_of(weight))

    def _masked_gradient(self, gradient: Tensor) -> Tensor:
        """Record a gradient, and return the masked one, which is added to the weight's `grad` instead."""
        self._move_mask()
        masking = self.masking
        masking.record_gradient(gathered(gradient))
        return gradient if masking.dense else masking.method.gradient(gradient, self.weight, masking.mask_of(gradient))


def _contains(model: torch.nn.Module, path: str, module: torch.nn.Module) -> bool:
    """Whether a module is in the model: at its path, or at another path, for example because it was wrapped."""
    try:
        if model.get_submodule(path) is module:
            return True
    except AttributeError:
        pass
    return any(each is module for each in model.modules())
