"""The weights of blocks to prune, with layouts and patterns, and the reasons why other weights stay dense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from masksmith._errors import PruningError
from masksmith.layouts import BY_CHOICE, Candidate, Layout, SelectionError, is_conv1d, select, with_layouts
from masksmith.layouts.roles import OUTSIDE_BLOCKS
from masksmith.patterns import Pattern, TensorPatterns
from masksmith.patterns.matching import Globs

from .blocks import BlockList
from .parts import Part

Module = torch.nn.Module
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
PARAMETRIZED = "its layer is parametrized, so its values are computed again; remove the parametrization first"


@dataclass(frozen=True, eq=False)
class BlockWeight:
    """A parameter of a block, or a part of one, that is pruned.

    Attributes:
        name: Its name; that of the parameter, unless it is a part.
        parameter: The parameter.
        layout: How it is made of matrices.
        pattern: Pattern of each matrix.
        part: Where it is in the parameter; None if it is all of it.
    """

    name: str
    parameter: torch.nn.Parameter
    layout: Layout
    pattern: Pattern
    part: Part | None = None

    @property
    def tensor(self) -> torch.Tensor:
        """Its values, in the memory of the parameter."""
        values = self.parameter.detach()
        return values if self.part is None else self.part.view(values)

    @property
    def parameter_name(self) -> str:
        """Name of the parameter in the model."""
        return self.name if self.part is None else self.part.parameter

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensor.shape)

    @property
    def stack(self) -> tuple[int, ...]:
        """Lengths of the dimensions that count matrices."""
        return self.layout.stack_shape(self.shape)

    @property
    def count(self) -> int:
        """Number of its matrices."""
        return self.layout.count(self.shape)

    @property
    def inputs(self) -> int:
        """Number of inputs of each matrix."""
        return self.shape[self.layout.axes.index("in")]

    @property
    def is_expert(self) -> bool:
        """Whether it belongs to an expert, which may get only some of the tokens."""
        return bool(self.stack) or "expert" in self.name

    def matrix_name(self, matrix: int) -> str:
        """Name one of its matrices."""
        return f"{self.name}[{matrix}]" if self.stack else self.name

    def check_product(self, shape: tuple[int, ...], stride: int, tensor: torch.Tensor) -> None:
        """Check that a product with a view `[in, out]` sums over the axis `in` of the layout, over whole matrices.

        Args:
            shape: Shape of the view.
            stride: Stride of its first axis.
            tensor: The weight.

        Raises:
            PruningError: If not.
        """
        in_axis, out_axis = self.layout.axes.index("in"), self.layout.axes.index("out")
        if (shape[0], stride) != (tensor.shape[in_axis], tensor.stride(in_axis)):
            raise PruningError(
                f"its products do not sum over the axis 'in' of the layout {str(self.layout)!r}", self.name
            )
        if shape[1] != tensor.shape[out_axis]:
            raise PruningError("it is multiplied in parts, which may have different inputs; exclude it", self.name)

    def matrix_at(self, offset: int, tensor: torch.Tensor) -> int:
        """Return the number of the matrix that has the entry at an offset in memory."""
        number = 0
        for length, stride, role in zip(tensor.shape, tensor.stride(), self.layout.axes, strict=True):
            if role == "stack":
                number = number * length + offset // stride % length
        return number


@dataclass(frozen=True)
class BlockWeights:
    """The weights to prune by block, and the reasons why other matrices stay dense, by name."""

    by_block: list[list[BlockWeight]]
    skipped: Mapping[str, str]


def weights_of(
    model: Module,
    blocks: BlockList,
    patterns: TensorPatterns,
    *,
    layers: Globs = None,
    exclude: Globs = None,
    layouts: Mapping[str, str] | None = None,
    parts: Mapping[str, Part] | None = None,
) -> BlockWeights:
    """Choose the weights to prune.

    Args:
        model: The model.
        blocks: Its blocks.
        patterns: Patterns of its weights.
        layers: As for `calibrate`.
        exclude: Names or globs of weights that stay dense.
        layouts: Axes by name, where names and modules do not show them.
        parts: Weights that are parts of parameters, by name, instead of these parameters.

    Raises:
        PruningError: If a name or glob matches nothing, a weight named exactly cannot be pruned, none is selected, or a
            part is not within a parameter.
    """
    parts = parts or {}
    places = _places(model, parts)
    candidates = _candidates(model, blocks, places, layouts or {})
    assigned = patterns.assign([candidate.name for candidate in candidates])
    try:
        selection = select(candidates, assigned, layers, exclude, noun="weight")
    except SelectionError as error:
        raise PruningError(str(error)) from None
    by_name = {candidate.name: candidate for candidate in candidates}
    reasons = {name: reason for name, reason in selection.skipped.items() if reason not in BY_CHOICE}
    parametrized = [name for name, reason in reasons.items() if reason == PARAMETRIZED]
    if parametrized:
        raise PruningError(f"{PARAMETRIZED}, or exclude it", parametrized[0])
    by_block: list[list[BlockWeight]] = [[] for _ in blocks.modules]
    number_of = _numbers(blocks)
    for name in selection.chosen:
        layout = by_name[name].layout
        assert layout is not None
        parameter = places[name].parameter
        weight = BlockWeight(name, parameter, layout, assigned[name], parts.get(name))
        by_block[number_of[id(parameter)]].append(weight)
    return BlockWeights(by_block, {name: reason for name, reason in reasons.items() if len(places[name].shape) >= 2})


@dataclass(frozen=True)
class _Place:
    """Where a weight is: its parameter, the module that has this, and the weight's shape."""

    parameter: torch.nn.Parameter
    module: Module
    shape: tuple[int, ...]


def _places(model: Module, parts: Mapping[str, Part]) -> dict[str, _Place]:
    """Return the places of all parameters by name, with parts instead of the parameters that have them.

    Raises:
        PruningError: If a part is not within a parameter of the model.
    """
    parameters = dict(model.named_parameters())
    in_parts = {part.parameter for part in parts.values()}
    places = {
        name: _Place(parameter, model.get_submodule(_owner(name)), tuple(parameter.shape))
        for name, parameter in parameters.items()
        if name not in in_parts
    }
    for name, part in parts.items():
        if part.parameter not in parameters or not part.fits(parameters[part.parameter].numel()):
            raise PruningError(f"it is not within a parameter {part.parameter!r} of the model; correct its part", name)
        module = model.get_submodule(_owner(part.parameter))
        places[name] = _Place(parameters[part.parameter], module, part.shape)
    return places


def _candidates(
    model: Module, blocks: BlockList, places: Mapping[str, _Place], layouts: Mapping[str, str]
) -> list[Candidate]:
    number_of = _numbers(blocks)
    candidates = [
        Candidate(
            name,
            place.shape,
            DTYPES.get(place.parameter.dtype, str(place.parameter.dtype)),
            aliases=(name.removesuffix(".weight"),) if name.endswith(".weight") else (),
            layout=Layout(("in", "out"), rule="model") if is_conv1d(place.module) and len(place.shape) == 2 else None,
            may_be_convolution=False,
            unsupported_reason=_unsupported_reason(place, blocks, number_of),
        )
        for name, place in places.items()
    ]
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    settings = None if to_dict is None else to_dict()
    candidates = with_layouts(candidates, {name: Layout.parse(axes) for name, axes in layouts.items()}, settings)
    return [_without_blocks_role(each) for each in candidates]


def _without_blocks_role(candidate: Candidate) -> Candidate:
    """Remove the reason that a name lies outside the blocks: the model itself shows which weights are in blocks."""
    is_named_outside = candidate.dense_by_default == OUTSIDE_BLOCKS
    return replace(candidate, dense_by_default=None) if is_named_outside else candidate


def _unsupported_reason(place: _Place, blocks: BlockList, number_of: Mapping[int, int]) -> str | None:
    if id(place.parameter) not in number_of:
        return f"outside the blocks {blocks.path!r}"
    if len(place.shape) < 2:
        return "fewer than two dimensions"
    class_name = type(place.module).__name__
    if class_name == "ParametrizationList" or class_name.startswith("Parametrized"):
        return PARAMETRIZED
    if isinstance(place.module, torch.nn.modules.conv._ConvNd):
        return "a convolution, which is not pruned block by block"
    return None


def _numbers(blocks: BlockList) -> dict[int, int]:
    """Return the number of the block that has a parameter, by the parameter's id.

    Raises:
        PruningError: If two blocks share a parameter.
    """
    numbers: dict[int, int] = {}
    for number, block in enumerate(blocks.modules):
        for name, parameter in block.named_parameters():
            first = numbers.setdefault(id(parameter), number)
            if first != number:
                raise PruningError(f"it shares the parameter {name!r} with {blocks.name(first)}", blocks.name(number))
    return numbers


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
