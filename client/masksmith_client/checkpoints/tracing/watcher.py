"""Watch the operations of a forward pass: products with parameters, other uses of parameters, and uses of outputs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from masksmith.layouts.convolutions import is_depthwise
from masksmith.layouts.layout import AxisRole

from .axis_roles import axes_from
from .outputs import Outputs
from .sources import CopyFollower, Source, Sources, operation_name, storage_id, tensors_in

LEFT: tuple[AxisRole, ...] = ("out", "in")
RIGHT: tuple[AxisRole, ...] = ("in", "out")
"""Roles of the dimensions of a matrix that is the left or the right operand of a product."""

PRODUCTS: dict[str, dict[int, tuple[AxisRole, ...]]] = {
    "mm": {0: LEFT, 1: RIGHT},
    "addmm": {1: LEFT, 2: RIGHT},
    "bmm": {0: ("stack", *LEFT), 1: ("stack", *RIGHT)},
    "baddbmm": {1: ("stack", *LEFT), 2: ("stack", *RIGHT)},
    "mv": {0: LEFT},
    "addmv": {1: LEFT},
    "linear": {1: LEFT},  # It transposes its weight, [out, in].
    "_grouped_mm": {1: ("stack", *RIGHT)},
    "grouped_mm_fallback": {1: ("stack", *RIGHT)},
}
"""By the name of a product's operation: the positions of the operands that may be weights, with the role of each
dimension of such a weight."""

LOOKED_UP = "an embedding, which is looked up, not multiplied"
LEARNED_INPUT = "a learned input, which other weights multiply"
DEPTHWISE = "a depthwise convolution, whose sums run over its kernel alone"
ENTRY_BY_ENTRY = "used entry by entry, not a matrix that multiplies"
BOTH_WAYS = "multiplied along both of its axes"


@dataclass(slots=True)
class Use:
    """What a forward pass does with a parameter.

    Attributes:
        axes: The parameter's axes in each product and convolution that it enters; None stands for a product or a
            convolution in which the axes are not certain.
        reasons: The parameter's uses other than as a matrix that multiplies, which may be reasons to leave it dense.
    """

    axes: set[tuple[AxisRole, ...] | None] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)

    @property
    def certain_axes(self) -> tuple[AxisRole, ...] | None:
        """The parameter's axes, if they are certain and the same wherever it multiplies; else None."""
        return next(iter(self.axes)) if len(self.axes) == 1 else None

    @property
    def dense_reason(self) -> str | None:
        """Why the parameter stays dense; None if no reason is certain, or no use was recorded.

        An embedding and a depthwise convolution stay dense even if they multiply elsewhere.
        """
        for reason in (LOOKED_UP, DEPTHWISE):
            if reason in self.reasons:
                return reason
        if len(self.axes - {None}) > 1:
            return BOTH_WAYS
        if self.axes:
            return None
        return next((reason for reason in (LEARNED_INPUT, ENTRY_BY_ENTRY) if reason in self.reasons), None)


class Watcher(CopyFollower):  # type: ignore[no-untyped-call]
    """Records the uses of parameters of two dimensions or more, and which outputs of their products are used together.

    On the meta device a bool tensor has no value: the result of `any()` is read as False, all others as True.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        super().__init__(Sources())
        self.uses: defaultdict[str, Use] = defaultdict(Use)
        self.outputs = Outputs()
        # Results of `any()` by the identity of their storage; results are kept alive, so that no storage is reused.
        self._any_results: dict[int, torch.Tensor] = {}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
        for name, tensor in parameters.items():
            if tensor.ndim >= 2:
                self.sources.add_parameter(name, tensor)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and record its use of parameters and of outputs of products."""
        name = operation_name(func)
        if name == "_local_scalar_dense" and args[0].is_meta and args[0].dtype == torch.bool:
            return storage_id(args[0]) not in self._any_results
        result = func(*args, **(kwargs or {}))
        self._note_output_uses(args, kwargs or {}, result)
        if name in PRODUCTS:
            self._note_product(PRODUCTS[name], args, result)
        elif name == "convolution":
            self._note_convolution(args)
        elif name == "embedding":
            self._note(args[0], LOOKED_UP)
        elif name == "any":
            self._any_results[storage_id(result)] = result
        elif not self.follow(func, args, result) and torch.Tag.pointwise in func.tags:
            for tensor in tensors_in(args):
                self._note(tensor, ENTRY_BY_ENTRY)
        return result

    def _note_output_uses(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Record which outputs of products an operation uses; a view of an output is no use of it."""
        results = {storage_id(tensor) for tensor in tensors_in((result,))}
        for tensor in tensors_in((args, kwargs)):
            if storage_id(tensor) not in results:
                self.outputs.add_use(tensor)

    def _note(self, tensor: torch.Tensor, reason: str) -> None:
        for source in self.sources.of(tensor):
            self.uses[source.parameter].reasons.add(reason)

    def _note_product(
        self, operands: dict[int, tuple[AxisRole, ...]], args: tuple[Any, ...], result: torch.Tensor
    ) -> None:
        positions = [position for position in operands if self.sources.of(args[position])]
        if not positions:
            return
        # In a product of two parameters, the right one is the weight.
        if len(positions) == 2:
            self._note(args[positions[0]], LEARNED_INPUT)
        weight = args[positions[-1]]
        roles = operands[positions[-1]][-weight.ndim :]  # Without the stack, if the weight is one matrix.
        # The outputs are the last dimension of the result if the weight is the right operand, or if the operation is
        # `linear`, which transposes the weight.
        outputs_are_last = roles[-1] == "out" or operands is PRODUCTS["linear"]
        for source in self.sources.of(weight):
            self._note_axes(source, roles)
            if outputs_are_last:
                self.outputs.add(source.parameter, result, weight.shape[roles.index("out")])

    def _note_convolution(self, args: tuple[Any, ...]) -> None:
        _input, weight, _bias, _stride, _padding, _dilation, is_transposed, _output_padding, groups = args
        kernel: tuple[AxisRole, ...] = ("kernel",) * (weight.ndim - 2)
        if is_depthwise(weight.shape, groups, is_transposed=is_transposed):
            self._note(weight, DEPTHWISE)
        for source in self.sources.of(weight):
            if groups > 1 and is_transposed:
                # The first dimension counts both the groups and the inputs of each group.
                self.uses[source.parameter].axes.add(None)
                continue
            self._note_axes(source, ("in", "out", *kernel) if is_transposed else ("out", "in", *kernel))

    def _note_axes(self, source: Source, roles: tuple[AxisRole, ...]) -> None:
        shape = self._shapes[source.parameter]
        roles_by_dim: list[set[AxisRole]] = [set() for _ in shape]
        for role, dims in zip(roles, source.dims, strict=True):
            for dim in dims:
                roles_by_dim[dim].add(role)
        axes = axes_from([frozenset(roles_of_dim) for roles_of_dim in roles_by_dim], shape)
        self.uses[source.parameter].axes.add(axes)
