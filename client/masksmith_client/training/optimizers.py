"""Optimizers whose steps a method modifies: several, wrapped, fused under a gradient scaler, or with closures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .methods.method import Method

Optimizers = torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None


class WatchedOptimizers:
    """Calls the method's `before_step` for the weights of each watched optimizer, once its gradients are complete."""

    def __init__(self, layers: list[MaskedLayer], method: Method) -> None:
        self._layers, self._method = layers, method
        self._hooks: dict[torch.optim.Optimizer, torch.utils.hooks.RemovableHandle] = {}

    def watch(self, optimizers: Optimizers) -> None:
        """Register one or several optimizers.

        Raises:
            InputError: If one is not an optimizer, or holds no masked weight, or the last thresholds are in none.
        """
        for optimizer in _as_list(optimizers):
            if optimizer not in self._hooks:
                self._check(optimizer)
                self._hooks[optimizer] = optimizer.register_step_pre_hook(self._before_step)

    def check(self) -> None:
        """Check that the method gets all optimizers that it needs.

        Raises:
            InputError: If a trained weight is in no watched optimizer.
        """
        if not self._method.needs_optimizer:
            return
        name = type(self._method).__name__
        if not self._hooks:
            raise InputError(f"{name} needs the optimizer: pass optimizer=, or call watch()")
        held = {parameter for optimizer in self._hooks for parameter in _parameters(optimizer)}
        for layer in self._layers:
            if layer.weight.requires_grad and id(layer.weight) not in held:
                raise InputError(
                    f"{name} needs the optimizer of {layer.name!r}, which no watched optimizer holds: "
                    "watch() that one, too, or freeze the weight"
                )

    def remove(self) -> None:
        """Remove the hooks from all optimizers."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def _check(self, optimizer: torch.optim.Optimizer) -> None:
        held = _parameters(optimizer)
        layers = [layer for layer in self._layers if id(layer.weight) in held]
        if not layers:
            raise InputError(
                f"the optimizer {type(optimizer).__name__} holds none of the masked weights: pass the one that trains "
                f"{self._layers[0].name!r}"
            )
        for layer in layers:
            for name, parameter in layer.masking.named_parameters():
                if id(parameter) not in held:
                    raise InputError(
                        f"the optimizer lacks the {name} of {layer.name!r}: create it after the Sparsifier"
                    )

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Modify the gradients; with a closure, after it has computed them."""
        # Some versions of torch pass the optimizer again as the first argument.
        first = 1 if args and args[0] is optimizer else 0
        closure = kwargs.get("closure", args[first] if len(args) > first else None)
        if closure is None:
            self._modify(optimizer)
            return None
        wrapped = self._after(closure, optimizer)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": wrapped}
        return (*args[:first], wrapped, *args[first + 1 :]), kwargs

    def _after(self, closure: Callable[[], Any], optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
        def closure_and_method() -> Any:
            loss = closure()
            self._modify(optimizer)
            return loss

        return closure_and_method

    @torch.no_grad()
    def _modify(self, optimizer: torch.optim.Optimizer) -> None:
        held = _parameters(optimizer)
        # A gradient scaler leaves the division by its scale to fused optimizers.
        scale = getattr(optimizer, "grad_scale", None)
        for layer in self._layers:
            weight = layer.weight
            if id(weight) not in held or weight.grad is None:
                continue
            if scale is not None:
                weight.grad.div_(scale.to(weight.grad.device))
            self._method.before_step(layer)
            if scale is not None:
                weight.grad.mul_(scale.to(weight.grad.device))


def _parameters(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _as_list(optimizers: Optimizers) -> list[torch.optim.Optimizer]:
    one = _unwrapped(optimizers)
    if isinstance(one, torch.optim.Optimizer):
        return [one]
    if isinstance(optimizers, Iterable) and not isinstance(optimizers, str):
        several = [_unwrapped(each) for each in optimizers]
        if several and all(isinstance(each, torch.optim.Optimizer) for each in several):
            return several
    raise InputError(f"optimizer={optimizers!r} is neither a torch optimizer nor a list of them")


def _unwrapped(optimizer: Any) -> Any:
    # The wrappers of accelerate and Lightning have no hooks of their own.
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer) and inner is not optimizer:
        optimizer = inner
    return optimizer
