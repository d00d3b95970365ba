"""The inputs with which a forward pass multiplies the weights of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import BuiltinFunctionType
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from masksmith.layouts import is_transformers_conv1d

from .accumulator import LayerAccumulator, patches, repeated_to
from .gram import at_least_float32
from .matrices import Matrices, Matrix, tensors_in
from .unfollowed import UnfollowedUses, operation_kind, unfollowed_reason

Tensor = torch.Tensor

PRODUCTS: Mapping[str, tuple[int, int]] = {
    "mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2), "mv": (0, 1), "addmv": (1, 2), "linear": (0, 1),
}  # fmt: skip
"""Positions of the left and the right operand among the arguments, by the name of the operation."""

FUNCTIONS: Mapping[Any, str] = {torch.nn.Linear: "linear", torch.nn.Conv1d: "conv1d", torch.nn.Conv2d: "conv2d"}
"""Names of the functions that layers of torch call, by their classes."""

NO_PRODUCT = "its class has a forward of its own, in which no product with its weight was seen"
OTHER_PRODUCT = "a part of its weight is multiplied alone, or its products do not sum over its inputs"


@dataclass
class _Call:
    """A running call of a layer.

    Attributes:
        module: The layer.
        is_recorded: Whether the hook of the call adds the call's input, so that its products need not be watched.
        has_product: Whether the layer's weight has been multiplied.
    """

    module: torch.nn.Module
    is_recorded: bool
    has_product: bool = False


@dataclass(frozen=True)
class _Operand:
    """An operand of a product that may be a weight.

    Attributes:
        tensor: The operand.
        weight: The operand as `[out, in, *kernel]`; None if it cannot be written so: it is a batch of different
            matrices, or the weight of a convolution that is not calibrated.
        rows: Computes the inputs that the operand is multiplied with, `[tokens, in * kernel]`.
    """

    tensor: Tensor
    weight: Tensor | None
    rows: Callable[[], Tensor]


class ProductRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the inputs that the layers' weights are multiplied with to the layers' accumulators.

    A layer of one of torch's own classes multiplies its weight with the input of the call, so that input is added. In
    calls of other layers, in calls within `torch.vmap`, and outside of layers, every matrix product is watched: it
    multiplies a weight if the memory of one operand is that of a weight, or of a tensor computed from a weight. A layer
    whose weight is used otherwise is not calibrated, since not all inputs of the weight are known.

    Args:
        accumulators: The accumulators.
    """

    # Operators such as `flex_attention` run, but the operations inside of them are not watched.
    supports_higher_order_operators = True

    def __init__(self, accumulators: Iterable[LayerAccumulator]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._accumulators = {module: each for each in accumulators for module in each.modules}
        self._forget_tensors()
        self._calls: list[_Call] = []

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Watch the operations of a batch.

        Weights are looked up anew for each batch; tensors that an earlier batch computed from weights are forgotten,
        also by the caller's `torch.autocast`, which keeps copies of weights in 16 bits.
        """
        torch.clear_autocast_cache()
        self._forget_tensors()
        for module, accumulator in self._accumulators.items():
            self._add_weight(module, accumulator, module._parameters.get("weight"))
        with self:
            yield

    def _forget_tensors(self) -> None:
        self._matrices = Matrices()
        self._uses: UnfollowedUses[LayerAccumulator] = UnfollowedUses(self._accumulators_in)

    def _accumulators_in(self, tensor: Tensor) -> list[LayerAccumulator]:
        return [matrix.accumulator for matrix in self._matrices.of(tensor)]

    def register(self) -> Iterator[torch.utils.hooks.RemovableHandle]:
        """Register hooks for the calls of the layers, each when its handle is yielded."""
        for module in self._accumulators:
            yield module.register_forward_pre_hook(self._begin, with_kwargs=True)
            yield module.register_forward_hook(self._end, with_kwargs=True, always_call=True)

    def _begin(self, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        accumulator = self._accumulators[module]
        is_transformed = any(map(_is_transformed, tensors_in([*arguments, *keywords.values()])))
        self._calls.append(_Call(module, is_recorded=not (is_transformed or has_own_forward(module))))
        accumulator.calls += 1
        if self._calls[-1].is_recorded:
            accumulator.add_inputs(module, arguments, keywords)
        else:
            self._add_weight(module, accumulator, module.weight)

    def _end(
        self, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any], output: Any
    ) -> None:
        if not self._calls or self._calls[-1].module is not module:
            return  # A hook of someone else raised an error before the call began.
        call, accumulator = self._calls.pop(), self._accumulators[module]
        is_empty = all(tensor.numel() == 0 for tensor in tensors_in([*arguments, *keywords.values()]))
        if not (call.is_recorded or call.has_product or is_empty or accumulator.ignores_inputs):
            accumulator.unsupported_reason = NO_PRODUCT

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation; if it is a product with a weight, first add its inputs."""
        # Inside such a call, products with weights of other layers are not watched either.
        if self._calls and self._calls[-1].is_recorded:
            return func(*args, **(kwargs or {}))
        name, is_entrywise = operation_kind(func)
        multiplied = self._add_product(name, args) if name in PRODUCTS or name == "convolution" else None
        result = func(*args, **(kwargs or {}))
        arguments, results = list(tensors_in([*args, *(kwargs or {}).values()])), list(tensors_in((result,)))
        if is_entrywise:
            self._matrices.follow(list(tensors_in(args[1:2])) if name == "copy_" else arguments, results)
        for accumulator in self._uses.find(func, arguments, results, () if multiplied is None else (multiplied,)):
            if not accumulator.ignores_inputs and accumulator.unsupported_reason is None:
                accumulator.unsupported_reason = unfollowed_reason(func)
        return result

    def _add_product(self, name: str, args: Sequence[Any]) -> Tensor | None:
        """Add the inputs of a product with one weight, and return that operand; a product of two has no inputs."""
        self._add_weights_of_calls()
        operands = [
            (operand, matrices) for operand in _operands(name, args) if (matrices := self._matrices.of(operand.tensor))
        ]
        if len(operands) != 1:
            return None
        ((operand, matrices),) = operands
        for matrix in matrices:
            self._add(matrix, operand)
        return operand.tensor

    def _add(self, matrix: Matrix, operand: _Operand) -> None:
        accumulator = matrix.accumulator
        if accumulator.ignores_inputs:
            return
        for call in self._calls:
            call.has_product |= self._accumulators[call.module] is accumulator
        if operand.weight is None or not matrix.is_whole(operand.weight):
            accumulator.unsupported_reason = OTHER_PRODUCT
        else:
            accumulator.add_rows(operand.rows())

    def _add_weights_of_calls(self) -> None:
        """Add the weights of the layers that are called: a wrapper of `forward` may have loaded other ones."""
        for call in self._calls:
            self._add_weight(call.module, self._accumulators[call.module], call.module._parameters.get("weight"))

    def _add_weight(self, module: torch.nn.Module, accumulator: LayerAccumulator, weight: Any) -> None:
        if weight is not None:
            self._matrices.add(accumulator, weight.detach().mT if is_transformers_conv1d(module) else weight.detach())


def has_own_forward(module: torch.nn.Module) -> bool:
    """Whether a layer computes anything other than its base class defines.

    It does if its class overrides the computation, if a `forward` was set on the layer or on the base class itself, or
    if a function of torch that it calls was replaced, such as `torch.nn.functional.linear`.
    """
    base = next((each for each in type(module).__mro__ if each in FUNCTIONS), None)
    if is_transformers_conv1d(module):
        base = [each for each in type(module).__mro__ if each.__name__ == "Conv1D"][-1]
    methods = {name: getattr(base, name) for name in ("forward", "_conv_forward") if hasattr(base, name)}
    function = getattr(functional, FUNCTIONS[base]) if base in FUNCTIONS else torch.addmm
    return not isinstance(function, BuiltinFunctionType) or any(
        name in vars(module) or getattr(type(module), name) is not method or not _is_of_its_module(method, base)
        for name, method in methods.items()
    )


def _is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor belongs to `torch.vmap` or another transform of `torch.func`, and has no values of its own."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _is_of_its_module(method: Any, kind: Any) -> bool:
    """Whether the code of a class's method is in the class's module; a function that replaced it is elsewhere."""
    return bool(getattr(method, "__globals__", {}).get("__name__") == kind.__module__)


def _operands(name: str, args: Sequence[Any]) -> list[_Operand]:
    """Return those operands of a product that may be weights."""
    if name == "convolution":
        return [_convolution_operand(*args)]
    left, right = (args[position] for position in PRODUCTS[name])
    transposed = right.mT if name != "linear" and right.ndim > 1 else right
    operands = [_Operand(right, _one_matrix(transposed), partial(_rows, left))] if right.ndim > 1 else []
    return [*operands, _Operand(left, _one_matrix(left), partial(_rows, transposed))]


def _convolution_operand(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    is_transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> _Operand:
    padding_twice = [length for length in reversed(repeated_to(padding, weight.ndim - 2)) for _ in range(2)]

    def rows() -> Tensor:
        return patches(functional.pad(at_least_float32(inputs), padding_twice), weight.shape[2:], dilation, stride)

    is_known = not is_transposed and groups == 1 and weight.ndim <= 4
    return _Operand(weight, weight if is_known else None, rows)


def _one_matrix(operand: Tensor) -> Tensor | None:
    """Return an operand as one matrix; None if it is a batch of different matrices."""
    if operand.ndim == 3 and (len(operand) == 1 or operand.stride(0) == 0):
        return operand[0]
    return operand if operand.ndim == 2 else None


def _rows(inputs: Tensor) -> Tensor:
    return inputs.reshape(-1, inputs.shape[-1])
