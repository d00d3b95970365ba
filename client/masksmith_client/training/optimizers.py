"""Watches optimizers: calls the training method before their steps, and checks that they train the masked weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .methods.method import Method
from .sharding import reshard


def must_be_watched(method: Method, *optimizers: Any) -> bool:
    """Whether these optimizers must be passed to `WatchedOptimizers.add`.

    True if the method needs an optimizer; also true if the method does not support ascent and one of the optimizers
    ascends gradients, so that `add` raises the error.
    """
    ascend = (group.get("maximize") for optimizer in optimizers for group in getattr(optimizer, "param_groups", ()))
    return method.needs_optimizer or (not method.supports_ascent and any(ascend))


class WatchedOptimizers:
    """Watches optimizers that train masked weights; `bool()` of it is True if it watches an optimizer.

    Args:
        model: The model.
        layers: Its masked layers.
        method: Before each step of an optimizer, its `before_step` is called with each masked layer whose weight the
            optimizer owns.
        before_step: A bound method that is called before that.
    """

    def __init__(
        self, model: torch.nn.Module, layers: Sequence[MaskedLayer], method: Method, before_step: Callable[[], None]
    ) -> None:
        self._model, self._layers, self._method = model, layers, method
        # The hooks of an optimizer must not keep alive what belongs to a sparsifier, such as its refresh worker.
        self._before_step = weakref.WeakMethod(before_step)
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        # Names of the layers whose weight a watched optimizer has stepped since the last check.
        self._stepped_layers: set[str] = set()
        # By name of the layer: the version of its weight at the last check, and the number of checks that found the
        # weight changed since a watched optimizer last stepped it.
        self._versions: dict[str, int] = {}
        self._other_changes: dict[str, int] = {}

    def add(self, *optimizers: object) -> None:
        """Watch those of the optimizers that own masked weights; optimizers may be inside wrappers and lists.

        Raises:
            InputError: If an argument is not an optimizer; if no optimizer owns a masked weight; if a masked weight is
                trained with `maximize=True`, and the training method does not support that; or if a parameter that the
                method added belongs to no optimizer.
        """
        reshard(self._model)
        unwrapped = [_unwrapped(optimizer) for optimizer in _flat(optimizers)]
        if unwrapped:
            self._check_method_parameters(unwrapped)
        to_watch = [optimizer for optimizer in unwrapped if self._owns_masked_weight(optimizer)]
        if not to_watch:
            names = ", ".join(type(optimizer).__name__ for optimizer in unwrapped) or "the empty list of optimizers"
            raise InputError(f"{names} contains no masked weight: pass the optimizer that trains the masked weights")
        self._check_ascent(to_watch)
        for optimizer in to_watch:
            if not any(optimizer is watched for watched in self._optimizers):
                self._optimizers.append(optimizer)
                self._hooks.append(optimizer.register_step_pre_hook(self._before_optimizer_step))

    def check(self) -> None:
        """Check that masked weights are trained by watched optimizers only; must be called after each step.

        Raises:
            InputError: If a masked weight that requires gradients belongs to no watched optimizer; or if two checks
                have found a masked weight changed since a watched optimizer last stepped it.
        """
        for layer in self._layers:
            self._check_changes(layer)
        owned_ids = set[int]().union(*(_parameter_ids(optimizer) for optimizer in self._optimizers))
        for layer in self._layers:
            if layer.weight.requires_grad and id(layer.weight) not in owned_ids:
                raise InputError(f"no watched optimizer holds {layer.name!r}: call watch() with the one that does")

    def __bool__(self) -> bool:
        return bool(self._optimizers)

    def remove(self) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._optimizers = [], []

    def _check_changes(self, layer: MaskedLayer) -> None:
        version, other_changes = layer.weight._version, self._other_changes.get(layer.name, 0)
        if layer.name in self._stepped_layers:
            other_changes = 0
        elif version != self._versions.get(layer.name, version):
            other_changes += 1
        self._versions[layer.name], self._other_changes[layer.name] = version, other_changes
        self._stepped_layers.discard(layer.name)
        # A single change is accepted: a checkpoint may have been loaded while a gradient scaler skipped the step.
        if other_changes > 1:
            raise InputError(
                f"{layer.name!r} was changed by something other than the watched optimizer: call watch() with the "
                "optimizer that trains it"
            )

    def _owns_masked_weight(self, optimizer: torch.optim.Optimizer) -> bool:
        owned_ids = _parameter_ids(optimizer)
        return any(id(layer.weight) in owned_ids for layer in self._layers)

    def _check_ascent(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Check that no masked weight is trained with `maximize=True`, unless the training method supports it."""
        if self._method.supports_ascent:
            return
        groups = [group for optimizer in optimizers for group in optimizer.param_groups if group.get("maximize")]
        ascending_ids = {id(parameter) for group in groups for parameter in group["params"]}
        for layer in self._layers:
            if id(layer.weight) in ascending_ids:
                raise InputError(
                    f"{type(self._method).__name__} would make the pruned entries of {layer.name!r} grow, since its "
                    "optimizer has maximize=True: use MaskedDecay"
                )

    def _check_method_parameters(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Check that these and the watched optimizers have all parameters that the training method added."""
        owned_ids = set[int]().union(*(_parameter_ids(optimizer) for optimizer in (*optimizers, *self._optimizers)))
        for layer in self._layers:
            for name, parameter in layer.masking.named_parameters():
                if id(parameter) not in owned_ids:
                    raise InputError(
                        f"the optimizer lacks the {name} of {layer.name!r}: create it after the Sparsifier"
                    )

    def _before_optimizer_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Call `before_step` before the step; with a closure, each time the closure has computed gradients.

        Raises:
            InputError: If `maximize` was set since the optimizer is watched; see `add`.
        """
        if (before_step := self._before_step()) is not None:
            before_step()
        reshard(self._model)
        self._check_ascent([optimizer])
        # Some versions of torch pass the optimizer again as the first argument.
        first = 1 if args and args[0] is optimizer else 0
        closure = kwargs.get("closure", args[first] if len(args) > first else None)
        if closure is None:
            self._call_before_step(optimizer)
            return None

        def closure_and_before_step() -> Any:
            loss = closure()
            self._call_before_step(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure_and_before_step}
        return (*args[:first], closure_and_before_step, *args[first + 1 :]), kwargs

    def _call_before_step(self, optimizer: torch.optim.Optimizer) -> None:
        groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
        # A fused optimizer gets scaled gradients from a GradScaler, and divides them by this scale itself.
        scale = getattr(optimizer, "grad_scale", None)
        for layer in self._layers:
            group = groups.get(id(layer.weight))
            if group is not None:
                sign = -1.0 if group.get("maximize") else 1.0
                layer.gradient_scale = sign if scale is None else sign * scale.to(layer.weight.device)
                self._stepped_layers.add(layer.name)
                self._method.before_step(layer)


def _flat(optimizers: Sequence[object]) -> Iterator[object]:
    for optimizer in optimizers:
        if isinstance(optimizer, (list, tuple)):
            yield from _flat(optimizer)
        else:
            yield optimizer


def _unwrapped(optimizer: object) -> torch.optim.Optimizer:
    """Return an optimizer without accelerate's, Lightning's and similar wrappers; `InputError` if there is none."""
    for name in ("optimizer", "_optimizer"):
        inner = getattr(optimizer, name, None)
        if inner is not None and inner is not optimizer:
            return _unwrapped(inner)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer={optimizer!r} is not a torch optimizer")
    return optimizer


def _parameter_ids(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
