"""Accumulates sums over the inputs and gradients of one layer, and a random sample of its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from masksmith._errors import ScoresError
from masksmith._torch_modes import in_full_precision
from masksmith.layouts import is_transformers_conv1d

from .gram import at_least_float32, product_of
from .statistics import LayerStatistics

Tensor = torch.Tensor


class LayerAccumulator:
    """Accumulates statistics of a layer.

    Args:
        name: The name of the layer's weight, for messages.
        module: The layer.
        gather: Kinds of statistics: some of `norms`, `gram`, `activations` and `gradients`.
        max_samples: Largest number of input rows that are kept as activations.

    Attributes:
        modules: The layer, followed by the layers that share its weight, which the caller appends.
        samples: Number of all input rows so far, not only of those that are kept.
        calls: Number of calls of the layers so far.
        batches: Number of batches so far whose gradient was added.
        ignores_inputs: Whether `add_inputs` and `add_rows` add nothing, for example while a backward pass runs layers
            again.
        unsupported_reason: Why the inputs that were added are not all inputs of the weight; None if they are.
    """

    def __init__(self, name: str, module: Any, gather: Sequence[str], max_samples: int) -> None:
        self.name, self.modules = name, [module]
        self.samples = self.calls = self.batches = 0
        self.unsupported_reason: str | None = None
        self.ignores_inputs = False
        self._gather, self._max_samples = gather, max_samples
        self._sums: dict[str, Tensor] = {}
        self._sampled_rows: Tensor | None = None
        self._keys = torch.empty(0, dtype=torch.float32, device="cpu")
        self._generator = torch.Generator().manual_seed(0)

    @in_full_precision()
    def add_inputs(self, module: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        """Add the inputs of a layer's call; can be registered as a forward pre-hook with keyword arguments.

        Raises:
            ScoresError: If the first argument is not a tensor, or does not fit the layer's weight.
        """
        if self.ignores_inputs:
            return
        first = arguments[0] if arguments else keywords.get(_first_parameter(module))
        if not isinstance(first, torch.Tensor):
            raise ScoresError(f"the layer was called with {type(first).__name__} instead of a tensor", name=self.name)
        if not _fits(module, first):
            shape, weight = list(first.shape), list(module.weight.shape)
            raise ScoresError(f"the layer was called with shape {shape}, its weight has {weight}", name=self.name)
        self.add_rows(_rows(module, at_least_float32(first.detach())))

    @in_full_precision()
    def add_rows(self, rows: Tensor) -> None:
        """Add inputs `[rows, in]`, or patches of a convolution `[rows, in * kernel]`."""
        if self.ignores_inputs:
            return
        inputs = at_least_float32(rows.detach())
        self.samples += len(inputs)
        if "norms" in self._gather:
            self._add("norms", inputs.double().square().sum(0))
        if "gram" in self._gather:
            self._add("gram", product_of(inputs).double())
        if "activations" in self._gather:
            self._sample(inputs.float())

    def add_gradient(self, gradient: Tensor | None) -> None:
        """Add a batch's gradient; None counts as 0."""
        self.batches += 1
        if gradient is not None:
            values = gradient.detach().float()
            self._add("gradient", values)
            # The root of the sum, not the sum: squares of values below 1e-22, or above 1e19, are 0 or infinite.
            root = self._sums.get("gradient_rms")
            self._sums["gradient_rms"] = values.abs() if root is None else torch.hypot(root, values)

    def finish(self) -> LayerStatistics:
        """Return the statistics, as numpy arrays; to gather gradients, `add_gradient` must have been called.

        Raises:
            ScoresError: If a sum or a sampled row has NaN or infinity.
        """
        results = dict(self._sums) if self._sampled_rows is None else self._sums | {"activations": self._sampled_rows}
        for kind, total in results.items():
            if not bool(torch.isfinite(total).all()):
                raise ScoresError(f"its {kind} hold NaN or infinity", name=self.name)
        results = {kind: total.cpu() for kind, total in results.items()}
        if "norms" in results:
            results["norms"] = results["norms"].sqrt()
        if "gradients" in self._gather:
            zeros = torch.zeros(self.modules[0].weight.shape, dtype=torch.float32, device="cpu")
            results["gradient"] = results.get("gradient", zeros) / self.batches
            results["gradient_rms"] = results.get("gradient_rms", zeros) / self.batches**0.5
        return LayerStatistics(self.samples, **{kind: total.numpy() for kind, total in results.items()})

    def _add(self, kind: str, value: Tensor) -> None:
        self._sums[kind] = self._sums[kind] + value if kind in self._sums else value

    def _sample(self, inputs: Tensor) -> None:
        """Give each row a random key; keep the `max_samples` rows with the smallest keys, a uniform random sample."""
        new_keys = torch.rand(len(inputs), generator=self._generator, dtype=torch.float32, device="cpu")
        keys = torch.cat([self._keys, new_keys])
        rows = inputs if self._sampled_rows is None else torch.cat([self._sampled_rows, inputs])
        selected = torch.argsort(keys)[: self._max_samples]
        self._keys, self._sampled_rows = keys[selected], rows[selected.to(rows.device)]


def _first_parameter(module: Any) -> str:
    """Return the name of the first parameter of a layer's `forward`: `input` in torch's layers, `x` in `Conv1D`."""
    return next(iter(inspect.signature(module.forward).parameters), "")


def _fits(module: Any, inputs: Tensor) -> bool:
    """Whether a tensor has as many features, or for a convolution as many channels, as a layer takes."""
    if is_transformers_conv1d(module):
        return inputs.ndim > 0 and inputs.shape[-1] == module.weight.shape[0]
    if isinstance(module, torch.nn.Linear):
        return inputs.ndim > 0 and inputs.shape[-1] == module.weight.shape[1]
    kernel_dimensions = len(module.kernel_size)
    return inputs.ndim > kernel_dimensions and inputs.shape[-1 - kernel_dimensions] == module.weight.shape[1]


def _rows(module: Any, inputs: Tensor) -> Tensor:
    """Return a layer's input as rows, one per token, or per patch of a convolution.

    Columns are the layer's input features; for a convolution, `in * kernel` in the order of its flattened weight.
    """
    if isinstance(module, torch.nn.Linear) or is_transformers_conv1d(module):
        return inputs.reshape(-1, inputs.shape[-1])
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padding = module._reversed_padding_repeated_twice
    # With `padding=(1,)`, torch stores a single pair of lengths, which holds for all dimensions of the kernel.
    padded = functional.pad(inputs, repeated_to(padding, 2 * len(module.kernel_size), 2), mode=mode)
    return patches(padded, module.kernel_size, module.dilation, module.stride)


def repeated_to(lengths: Sequence[int], count: int, group: int = 1) -> list[int]:
    """Return `count` lengths of a convolution's argument.

    If it has fewer, its first `group` lengths hold for all dimensions of the kernel, and are repeated.
    """
    return [*lengths] if len(lengths) == count else [*lengths[:group]] * (count // group)


def patches(padded: Tensor, kernel: Sequence[int], dilation: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Return the patches `[positions, in * kernel]` of a padded input that a convolution multiplies."""
    dilation, stride = repeated_to(dilation, len(kernel)), repeated_to(stride, len(kernel))
    if len(kernel) == 1:  # `unfold` takes only inputs with two spatial dimensions.
        padded = padded.unsqueeze(-2)
        kernel, dilation, stride = (1, *kernel), (1, *dilation), (1, *stride)
    columns = functional.unfold(padded, tuple(kernel), dilation=tuple(dilation), stride=tuple(stride))
    return columns.transpose(-1, -2).reshape(-1, columns.shape[-2])
