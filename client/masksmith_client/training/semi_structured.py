"""`compute="sparse"`: products of linear layers by torch's kernels for 2:4 weights, forward and backward.

With a transposable 2:4 mask, the masked weight `W` and its transpose both keep at most 2 of every 4 entries. So the
output `x W^T` of a layer, and the gradient `g W` of its input `x` (`g` is the gradient of the output), are products
with a 2:4 matrix. The gradient of the weight, `g^T x`, is a dense product. Values change at every optimizer step, so a
weight is packed in each forward and each backward pass.
"""

from __future__ import annotations

import itertools
import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from masksmith.patterns import NM, Pattern
from masksmith_client._errors import InputError

from .masked_layer import MaskedLayer
from .masking import Masking
from .schedules import DensePhases, Schedule
from .sharding import is_dtensor

DTYPES = (torch.float16, torch.bfloat16)
MULTIPLE = 64
"""Numbers of rows and columns must be multiples of this, since a weight and its transpose are packed."""
MIN_CAPABILITY = (8, 0)
"""The lowest compute capability of a GPU with 2:4 kernels."""
TOLERANCE = 0.02
"""Largest norm of the difference between a kernel's product and the dense one, as a share of the dense one's norm."""
USE_DENSE = "use compute='dense'"
"""Advice at the end of error messages."""


class Kernel(Protocol):
    """Packs 2:4 matrices and multiplies with them."""

    def unsupported_reason(self, weight: Tensor) -> str | None:
        """Return why the kernel cannot multiply with a weight; None if it can."""

    def pack(self, matrix: Tensor) -> Tensor:
        """Pack a matrix `[out, in]` with at most 2 of every 4 entries along `in`."""

    def linear(self, inputs: Tensor, packed: Tensor) -> Tensor:
        """Return `inputs @ matrix.T` for inputs `[batch, in]`, where `packed` is the packed matrix."""


class TorchKernel:
    """`torch.sparse.to_sparse_semi_structured`: cuSPARSELt, or CUTLASS where torch was built without it."""

    def unsupported_reason(self, weight: Tensor) -> str | None:
        """Return why there is no kernel for the weight's device; None if there is one."""
        if not weight.is_cuda or torch.version.cuda is None:
            return f"it is on the device {weight.device}; only NVIDIA GPUs have the kernels"
        capability = torch.cuda.get_device_capability(weight.device)
        if capability < MIN_CAPABILITY:
            return f"{weight.device} has compute capability {capability}; the kernels need {MIN_CAPABILITY}"
        return None

    def pack(self, matrix: Tensor) -> Tensor:
        """Pack a matrix."""
        return torch.sparse.to_sparse_semi_structured(matrix.contiguous())

    def linear(self, inputs: Tensor, packed: Tensor) -> Tensor:
        """Multiply by the packed matrix."""
        return torch.nn.functional.linear(inputs, packed)


KERNEL: Callable[[], Kernel] = TorchKernel
"""Creates the kernel of a layer."""


class SparseProduct:
    """The products of one linear layer, by packed weights.

    Args:
        name: The weight's name, for messages.
        kernel: Packs and multiplies.
    """

    def __init__(self, name: str, kernel: Kernel) -> None:
        self._name, self._kernel = name, kernel
        self._is_checked = False
        self._key = f"{name} {next(_key_numbers)}"
        _products[self._key] = self

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, masking: Masking) -> Tensor:
        """Return the layer's output; in dense phases by a dense product.

        Raises:
            InputError: If the weight or a dtype does not suit the kernel; or if a product is compared, as in the first
                calls, and differs from the dense one.
        """
        masked = masking(weight)
        if masking.dense:
            return torch.nn.functional.linear(inputs, masked, bias)
        if torch.is_autocast_enabled(inputs.device.type):
            dtype = torch.get_autocast_dtype(inputs.device.type)
            inputs, masked, bias = inputs.to(dtype), masked.to(dtype), None if bias is None else bias.to(dtype)
        output: Tensor = multiply(inputs.reshape(-1, inputs.shape[-1]), masked, self._key)
        output = output.reshape(*inputs.shape[:-1], masked.shape[0])
        return output if bias is None else output + bias

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy is created anew: it has a key of its own, and its products are checked again.
        return SparseProduct, (self._name, self._kernel)

    def multiply_by_kernel(self, inputs: Tensor, matrix: Tensor) -> Tensor:
        """Return `inputs @ matrix.T` by the kernel, for inputs `[batch, in]`.

        Raises:
            InputError: As for a call.
        """
        self._check(inputs, matrix)
        return self._kernel.linear(inputs.contiguous(), self._kernel.pack(matrix)).contiguous()

    def _check(self, inputs: Tensor, matrix: Tensor) -> None:
        """Check device and dtype; compare the kernel's products with dense ones in the first calls."""
        reason = self._kernel.unsupported_reason(matrix) or _unsupported_dtype_reason(inputs, matrix)
        if reason is not None:
            raise InputError(f"compute='sparse': {self._name!r} cannot be computed by 2:4 kernels: {reason}")
        if self._is_checked:
            return
        with torch.no_grad(), torch.autocast(matrix.device.type, enabled=False):
            output, is_output_compared = self._compare("output", matrix, inputs)
            # The gradient of the output is not known in the forward pass. The output stands in for it, since it has the
            # same shape.
            _, is_gradient_compared = self._compare("gradient of the input", matrix.t(), output)
        self._is_checked = is_output_compared and is_gradient_compared

    def _compare(self, product: str, matrix: Tensor, inputs: Tensor) -> tuple[Tensor, bool]:
        """Compare the kernel's product with the dense product `inputs @ matrix.T`.

        Returns:
            The dense product, and whether the comparison would have shown that a kernel is wrong. It does not if the
            product overflows, as in the first steps with a gradient scaler, or is zero.
        """
        expected = inputs @ matrix.t()
        actual = self._kernel.linear(inputs.contiguous(), self._kernel.pack(matrix))
        difference = float((actual.float() - expected.float()).norm())
        norm = float(expected.float().norm())
        # `not <=` is also true of a NaN.
        if math.isfinite(norm) and not difference <= TOLERANCE * norm:
            raise InputError(
                f"compute='sparse': the {product} of {self._name!r} by the 2:4 kernel differs from the dense one: "
                f"the norm of the difference is {difference:.3g}, that of the dense one {norm:.3g}: {USE_DENSE}"
            )
        return expected, math.isfinite(norm) and norm > 0


_key_numbers = itertools.count()
_products: weakref.WeakValueDictionary[str, SparseProduct] = weakref.WeakValueDictionary()
"""Each `SparseProduct` of this process, by its key; graphs of `torch.compile` contain the key."""


@torch.library.custom_op("masksmith::multiply", mutates_args=())
def multiply(inputs: Tensor, matrix: Tensor, key: str) -> Tensor:
    """Return `inputs @ matrix.T` for inputs `[batch, in]`: one operation to `torch.compile`, whatever the kernel does.

    The gradient of the inputs is a product with the transposed matrix; the gradient of the matrix is a dense product.
    """
    return _products[key].multiply_by_kernel(inputs, matrix)


@multiply.register_fake
def _output_of(inputs: Tensor, matrix: Tensor, key: str) -> Tensor:
    return inputs.new_empty(inputs.shape[0], matrix.shape[0])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, str], output: Tensor) -> None:
    # torch passes the arguments of `multiply` by the name `inputs`.
    rows, matrix, ctx.key = inputs
    ctx.product = _products[ctx.key]  # Kept until the backward pass, also if the model is deleted before it.
    ctx.save_for_backward(rows, matrix)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    rows, matrix = ctx.saved_tensors
    inputs_gradient = multiply(gradient, matrix.t(), ctx.key) if ctx.needs_input_grad[0] else None
    matrix_gradient = gradient.t() @ rows if ctx.needs_input_grad[1] else None
    return inputs_gradient, matrix_gradient, None


multiply.register_autograd(_gradients, setup_context=_save)


def use_sparse(layers: Iterable[MaskedLayer]) -> None:
    """Make the layers compute their outputs by the kernels as soon as the layers are attached.

    Raises:
        InputError: If a layer is not linear, or its weight or device does not suit the kernels.
    """
    for layer in layers:
        layer.masking.product = sparse_product(layer)


def check_compute(compute: object, pattern: Pattern, schedule: Schedule, in_place: bool) -> bool:
    """Return whether products are sparse; if they are, check that the masks suit the kernels at every step.

    Raises:
        InputError: If `compute` is neither `"dense"` nor `"sparse"`; or if it is `"sparse"`, and the pattern does not
            suit the kernels, the schedule changes the pattern, or masks are in place.
    """
    if compute == "dense":
        return False
    if compute != "sparse":
        raise InputError(f"compute={compute!r} is neither 'dense' nor 'sparse'")
    requirement = f"compute='sparse' needs the pattern 'transposable 2:4', or one with fewer entries, not {pattern}"
    if not isinstance(pattern, NM) or not pattern.transposable or (pattern.m, pattern.m_out) != (4, 4):
        raise InputError(f"{requirement}: {USE_DENSE}")
    if pattern.n > 2 or (pattern.n_out or pattern.n) > 2:
        raise InputError(f"{requirement}: {USE_DENSE}")
    between = schedule.between if isinstance(schedule, DensePhases) else schedule
    if type(between) is not Schedule:
        raise InputError(f"compute='sparse' needs {pattern} at every step, which {between} changes: {USE_DENSE}")
    if in_place:
        raise InputError(
            f"compute='sparse' packs the masked copy of a weight, and in_place=True makes none: {USE_DENSE}"
        )
    return True


def sparse_product(layer: MaskedLayer) -> SparseProduct:
    """Create the `SparseProduct` of a layer.

    Raises:
        InputError: If the layer is not linear, or its weight or device does not suit the kernels.
    """
    kernel = KERNEL()
    reason = next(filter(None, (_unsupported_layer_reason(layer), kernel.unsupported_reason(layer.weight))), None)
    if reason is not None:
        raise InputError(
            f"compute='sparse': {layer.name!r} cannot be computed by 2:4 kernels: {reason}. Leave it out with "
            f"exclude=, or {USE_DENSE}"
        )
    return SparseProduct(layer.name, kernel)


def _unsupported_layer_reason(layer: MaskedLayer) -> str | None:
    for module in layer.modules.values():
        if not isinstance(module, torch.nn.Linear) or type(module).forward is not torch.nn.Linear.forward:
            return f"{type(module).__name__} does not compute what torch.nn.Linear does"
    if is_dtensor(layer.weight):
        return "it is sharded"
    if any(size % MULTIPLE for size in layer.shape):
        return f"its shape is {list(layer.shape)}, and both sizes must be multiples of {MULTIPLE}"
    return None


def _unsupported_dtype_reason(inputs: Tensor, masked: Tensor) -> str | None:
    if inputs.dtype != masked.dtype:
        return f"the inputs are {inputs.dtype}, and the weight is {masked.dtype}"
    if masked.dtype not in DTYPES:
        return f"the weight is {masked.dtype}, and the kernels compute with float16 and bfloat16: use torch.autocast"
    return None
