"""Gathers what linear layers multiply by their weights, if their class replaces `forward`.

Such a `forward` may multiply the weight by something else than the input of the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .accumulator import LayerAccumulator


def has_own_forward(module: torch.nn.Module) -> bool:
    """Whether a module is a linear layer of a subclass that replaces `forward`."""
    return isinstance(module, torch.nn.Linear) and type(module).forward is not torch.nn.Linear.forward


@dataclass
class _Call:
    """A running call of a layer.

    Attributes:
        module: The layer.
        arguments, keywords: The arguments of the call.
        has_product: Whether the call has passed the layer's weight to `functional.linear`.
    """

    module: torch.nn.Module
    arguments: Sequence[Any]
    keywords: Mapping[str, Any]
    has_product: bool = False


class OwnForwardInputs(TorchFunctionMode):
    """Adds to accumulators what `functional.linear` multiplies by the weights of layers that replace `forward`.

    A call that does not pass the layer's weight to `functional.linear` adds the input of the layer instead.

    Args:
        accumulators: Accumulators by these layers.
    """

    def __init__(self, accumulators: Mapping[torch.nn.Module, LayerAccumulator]) -> None:
        super().__init__()
        self._accumulators = accumulators
        self._calls: list[_Call] = []

    def register(self) -> Iterable[torch.utils.hooks.RemovableHandle]:
        """Register hooks for the calls of the layers; yield each hook's handle before the next hook is registered."""
        for module in self._accumulators:
            yield module.register_forward_pre_hook(self._begin, with_kwargs=True)
            yield module.register_forward_hook(self._end)

    def _begin(self, module: torch.nn.Module, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        self._calls.append(_Call(module, arguments, keywords))

    def _end(self, module: torch.nn.Module, arguments: Sequence[Any], output: Any) -> None:
        call = self._calls.pop()
        if not call.has_product:
            self._accumulators[module].add_inputs(module, tuple(call.arguments), call.keywords)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function of torch; before `linear` with the weight of a layer that is running, add its input."""
        if func is functional.linear and self._calls:
            operands = dict(zip(("input", "weight"), args, strict=False)) | dict(kwargs or {})
            for call in self._calls:
                if operands["weight"] is call.module.weight:
                    call.has_product = True
                    self._accumulators[call.module].add_inputs(call.module, (operands["input"],), {})
        return func(*args, **(kwargs or {}))
