"""Which weights of the blocks are pruned, with layouts and patterns, and the reasons why other matrices stay dense."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch.nn.parameter import is_lazy

from masksmith._errors import PruningError
from masksmith.calibration.batches import LAZY_REASON
from masksmith.layouts import (
    BY_CHOICE,
    Candidate,
    Layout,
    Selection,
    SelectionError,
    check_rules_apply,
    is_transformers_conv1d,
    plain_path,
    select,
    with_layouts,
)
from masksmith.layouts.layout import SEVERAL_SUMMED_AXES
from masksmith.layouts.roles import OUTSIDE_BLOCKS
from masksmith.patterns import Pattern, TensorPatterns
from masksmith.patterns.matching import Globs

from .blocks import BlockList
from .parts import Part

Module = torch.nn.Module
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Names of the dtypes in safetensors files."""
UNOBSERVED = (
    "no product of the first batch shows its axes: its block does not use it, uses a copy of it, or sums over several "
    "of its axes"
)
PARAMETRIZED_REASON = (
    "its layer is parametrized, so each pass computes its values anew; remove the parametrization first"
)
REPARAMETRIZED_SUFFIXES = ("orig", "g", "v")
"""Suffixes of the parameters from which hooks of `torch.nn.utils` compute an attribute before each pass."""


@dataclass(frozen=True, eq=False)
class BlockWeight:
    """A weight of a block that is pruned: a parameter, or a part of a parameter.

    Attributes:
        name: Name of the weight: that of the parameter in the plain model, unless the weight is a part.
        parameter: The parameter.
        layout: How the weight is made of matrices.
        pattern: Pattern of each matrix.
        part: Where the weight is in the parameter; None if it is the whole parameter.
    """

    name: str
    parameter: torch.nn.Parameter
    layout: Layout
    pattern: Pattern
    part: Part | None = None

    @property
    def tensor(self) -> torch.Tensor:
        """The weight's values, in the memory of the parameter."""
        values = self.parameter.detach()
        return values if self.part is None else self.part.view(values)

    @property
    def parameter_name(self) -> str:
        """Name of the parameter in the model, without the segments of wrappers."""
        return self.name if self.part is None else self.part.parameter

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.tensor.shape)

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """Lengths of the dimensions that count matrices."""
        return self.layout.stack_shape(self.shape)

    @property
    def matrix_count(self) -> int:
        """Number of matrices."""
        return self.layout.count(self.shape)

    @property
    def input_count(self) -> int:
        """Number of inputs of each matrix."""
        return self.shape[self.layout.axes.index("in")]

    @property
    def is_expert(self) -> bool:
        """Whether the weight belongs to experts, which may get only some of the tokens.

        It does if its first axis counts matrices, or if its name contains `expert`. The matrices of a stack along
        another axis, such as heads, are multiplied with all tokens.
        """
        return self.layout.axes[0] == "stack" or "expert" in self.name

    def matrix_name(self, matrix: int) -> str:
        """Return the name of one of the weight's matrices."""
        return f"{self.name}[{matrix}]" if self.stack_shape else self.name

    def check_inputs(self, length: int, stride: int, tensor: torch.Tensor) -> None:
        """Check that a product with a view `[in, out]` sums over all of the layout's axis `in`.

        Args:
            length: Length of the view's first axis.
            stride: Stride of the view's first axis.
            tensor: The weight's `tensor`.

        Raises:
            PruningError: If the product sums over another axis or only some of the inputs.
        """
        in_axis = self.layout.axes.index("in")
        if (length, stride) != (tensor.shape[in_axis], tensor.stride(in_axis)):
            raise PruningError(
                f"its products do not sum over the axis 'in' of the layout {str(self.layout)!r}", self.name
            )

    def matrix_at(self, offset: int, tensor: torch.Tensor) -> int:
        """Return the number of the matrix that has the entry at an offset, in memory, from the weight's first entry."""
        number = 0
        for length, stride, role in zip(tensor.shape, tensor.stride(), self.layout.axes, strict=True):
            if role == "stack":
                number = number * length + offset // stride % length
        return number


@dataclass(frozen=True)
class BlockWeights:
    """The weights to prune.

    Attributes:
        by_block: The weights, by number of the block.
        skipped: Reasons why other matrices stay dense, by name; those that the caller did not select are left out.
        shared_names: For a weight that the model has under several names: maps each other name to the first one.
    """

    by_block: list[list[BlockWeight]]
    skipped: Mapping[str, str]
    shared_names: Mapping[str, str]


def weights_of(
    model: Module,
    blocks: BlockList,
    patterns: TensorPatterns,
    *,
    layers: Globs = None,
    exclude: Globs = None,
    layouts: Mapping[str, str] | None = None,
    parts: Mapping[str, Part] | None = None,
    unobserved: Collection[str] = (),
) -> BlockWeights:
    """Choose the weights to prune.

    Args:
        model: The model.
        blocks: The model's blocks.
        patterns: Patterns of the model's weights.
        layers: Names or globs of the weights to prune; by default all matrices in the blocks except routers.
        exclude: Names or globs of weights that stay dense.
        layouts: Axes of weights, by name, where names and modules do not show them.
        parts: Weights that are parts of parameters, by name, instead of these parameters.
        unobserved: Names of weights whose axes neither names and modules nor the products of a batch show.

    Raises:
        PruningError: If a name or glob matches nothing, a weight named exactly cannot be pruned, no weight is selected,
            a selected layer is parametrized, the patterns of two names of a weight differ, two blocks share a
            parameter, or a part is not within a parameter.
        PatternError: If a rule of `patterns` selects no parameter, or only weights that stay dense although the caller
            did not leave any of them out.
    """
    parts = parts or {}
    locations = _locations(model, parts)
    shared_names = _shared_names(model, locations)
    candidates = _candidates(model, blocks, locations, layouts or {}, shared_names, parts)
    pattern_of = _assign_patterns(patterns, list(locations), shared_names)
    try:
        selection = select(candidates, pattern_of, layers, exclude, noun="weight")
    except SelectionError as error:
        raise PruningError(str(error)) from None
    by_name = {candidate.name: candidate for candidate in candidates}
    reasons = {name: reason for name, reason in selection.skipped.items() if reason not in BY_CHOICE}
    # A reason from a weight's name or module, such as a bias, says more than `UNOBSERVED`.
    reasons |= {
        name: UNOBSERVED
        for name in unobserved
        if name in reasons and reasons[name] != by_name[name].dense_by_default_reason
    }
    parametrized = [name for name, reason in reasons.items() if reason == PARAMETRIZED_REASON]
    if parametrized:
        raise PruningError(f"{PARAMETRIZED_REASON}, or exclude it", parametrized[0])
    _check_rules_apply(patterns, candidates, selection, shared_names)
    by_block: list[list[BlockWeight]] = [[] for _ in blocks.modules]
    block_of = _block_numbers(blocks)
    for name in selection.chosen:
        layout = by_name[name].layout
        assert layout is not None
        parameter = locations[name].parameter
        weight = BlockWeight(name, parameter, layout, pattern_of[name], parts.get(name))
        by_block[block_of[id(parameter)]].append(weight)
    skipped = {name: reason for name, reason in reasons.items() if len(locations[name].shape) >= 2}
    return BlockWeights(by_block, skipped, shared_names)


def parameters_without_layout(
    model: Module, blocks: BlockList, layouts: Mapping[str, str]
) -> dict[str, torch.nn.Parameter]:
    """Return the parameters in the blocks whose axes neither names nor modules nor `layouts` show, by plain name.

    Those that stay dense for another reason, such as convolutions and the scales of a quantiser, are left out.
    """
    locations = _locations(model, {})
    block_of = _block_numbers(blocks)
    return {
        candidate.name: locations[candidate.name].parameter
        for candidate in _candidates(model, blocks, locations, layouts, _shared_names(model, locations), {})
        if candidate.has_unclear_layout and _unsupported_reason(locations[candidate.name], blocks, block_of) is None
    }


def _shared_names(model: Module, locations: Mapping[str, _Location]) -> dict[str, str]:
    """Return, for weights that the model has under several names, a dict from each later name to the first one."""
    name_of_parameter = {id(parameter): plain_path(model, path) for path, parameter in model.named_parameters()}
    first_name_of = {
        plain_path(model, path): name_of_parameter[id(each)]
        for path, each in model.named_parameters(remove_duplicate=False)
    }
    return {name: first for name, first in first_name_of.items() if name != first and first in locations}


def _assign_patterns(patterns: TensorPatterns, names: list[str], shared_names: Mapping[str, str]) -> dict[str, Pattern]:
    """Return the pattern of each weight that has one under any of its names, by the weight's first name.

    Raises:
        PruningError: If two names of a weight have different patterns.
    """
    pattern_of = patterns.assign([*names, *shared_names])
    for name, first in shared_names.items():
        pattern = pattern_of.pop(name, None)
        if pattern is not None and pattern_of.setdefault(first, pattern) != pattern:
            raise PruningError(f"{name!r} is another name of this weight, and the patterns of the two differ", first)
    return pattern_of


def _check_rules_apply(
    patterns: TensorPatterns, candidates: list[Candidate], selection: Selection, shared_names: Mapping[str, str]
) -> None:
    """Do what `check_rules_apply` does, also for rules that select a weight by another one of its names."""
    # Rules by the full name of a chosen weight apply; there may be one for each weight, and each check takes long.
    chosen = frozenset(selection.chosen)
    rules = {selector: pattern for selector, pattern in patterns.rules.items() if selector not in chosen}
    by_name = {candidate.name: candidate for candidate in candidates}
    others = [replace(by_name[first], name=name) for name, first in shared_names.items()]
    reasons = {name: selection.skipped[first] for name, first in shared_names.items() if first in selection.skipped}
    check_rules_apply(replace(patterns, rules=rules), [*candidates, *others], selection.skipped | reasons)


@dataclass(frozen=True)
class _Location:
    """Where a weight is: its parameter, the parameter's path and module, and the weight's shape."""

    parameter: torch.nn.Parameter
    path: str
    module: Module
    shape: tuple[int, ...]


def _locations(model: Module, parts: Mapping[str, Part]) -> dict[str, _Location]:
    """Return the locations of all parameters by plain name; a parameter that has parts is replaced by its parts.

    Raises:
        PruningError: If a part is not within a parameter of the model, or the shape of a parameter is not known.
    """
    lazy = next((path for path, parameter in model.named_parameters() if is_lazy(parameter)), None)
    if lazy is not None:
        raise PruningError(LAZY_REASON, plain_path(model, lazy))
    parameters = {
        plain_path(model, path): _Location(
            parameter, path, model.get_submodule(path.rpartition(".")[0]), tuple(parameter.shape)
        )
        for path, parameter in model.named_parameters()
    }
    divided_parameters = {part.parameter for part in parts.values()}
    locations = {name: location for name, location in parameters.items() if name not in divided_parameters}
    for name, part in parts.items():
        whole = parameters.get(part.parameter)
        if whole is None or not part.fits(whole.parameter.numel()):
            raise PruningError(f"it is not within a parameter {part.parameter!r} of the model; correct its part", name)
        locations[name] = replace(whole, shape=part.shape)
    return locations


def _candidates(
    model: Module,
    blocks: BlockList,
    locations: Mapping[str, _Location],
    layouts: Mapping[str, str],
    shared_names: Mapping[str, str],
    parts: Mapping[str, Part],
) -> list[Candidate]:
    block_of = _block_numbers(blocks)
    all_names: dict[str, list[str]] = {
        name: [name] if name in parts else [name, location.path] for name, location in locations.items()
    }
    for other, first in shared_names.items():
        all_names[first].append(other)
    candidates = [
        Candidate(
            name,
            location.shape,
            DTYPES.get(location.parameter.dtype, str(location.parameter.dtype)),
            aliases=_other_spellings(name, all_names[name]),
            layout=_layout_of_conv1d(location),
            may_be_convolution=False,
            unsupported_reason=_unsupported_reason(location, blocks, block_of),
        )
        for name, location in locations.items()
    ]
    to_dict = getattr(getattr(model, "config", None), "to_dict", None)
    config = None if to_dict is None else to_dict()
    candidates = with_layouts(candidates, {name: Layout.parse(axes) for name, axes in layouts.items()}, config)
    return [_without_reason_outside_blocks(_with_summed_axes_reason(candidate)) for candidate in candidates]


def _other_spellings(name: str, names: list[str]) -> tuple[str, ...]:
    """Return the names of a weight other than `name`, and the names of its modules, under all of its names.

    Args:
        name: The weight's first name.
        names: All names of the weight.
    """
    spellings = dict.fromkeys(spelling for each in names for spelling in (each, each.removesuffix(".weight")))
    return tuple(spelling for spelling in spellings if spelling != name)


def _layout_of_conv1d(location: _Location) -> Layout | None:
    """Return the layout of a matrix of `transformers.Conv1D`; None for other weights."""
    is_matrix = is_transformers_conv1d(location.module) and len(location.shape) == 2
    return Layout(("in", "out"), rule="model") if is_matrix else None


def _with_summed_axes_reason(candidate: Candidate) -> Candidate:
    """Add the reason why a weight whose layout has an axis `kernel` is not pruned block by block."""
    if candidate.unsupported_reason is not None or candidate.layout is None or "kernel" not in candidate.layout.axes:
        return candidate
    return replace(candidate, unsupported_reason=SEVERAL_SUMMED_AXES)


def _without_reason_outside_blocks(candidate: Candidate) -> Candidate:
    """Remove the reason that a name lies outside the blocks: the model itself shows which weights are in blocks."""
    is_named_outside = candidate.dense_by_default_reason == OUTSIDE_BLOCKS
    return replace(candidate, dense_by_default_reason=None) if is_named_outside else candidate


def _unsupported_reason(location: _Location, blocks: BlockList, block_of: Mapping[int, int]) -> str | None:
    if id(location.parameter) not in block_of:
        return f"outside the blocks {blocks.path!r}"
    if len(location.shape) < 2:
        return "fewer than two dimensions"
    class_name = type(location.module).__name__
    is_parametrized = class_name == "ParametrizationList" or class_name.startswith("Parametrized")
    if is_parametrized or _is_recomputed_by_hook(location):
        return PARAMETRIZED_REASON
    if isinstance(location.module, torch.nn.modules.conv._ConvNd):
        return "a convolution, which is not pruned block by block"
    return None


def _is_recomputed_by_hook(location: _Location) -> bool:
    """Whether a hook computes a layer's weight from the parameter, as with `torch.nn.utils.prune` and `weight_norm`."""
    attribute, _, suffix = location.path.rpartition(".")[2].rpartition("_")
    if suffix not in REPARAMETRIZED_SUFFIXES or attribute in location.module._parameters:
        return False
    return isinstance(vars(location.module).get(attribute), torch.Tensor)


def _block_numbers(blocks: BlockList) -> dict[int, int]:
    """Return, by the id of each parameter in the blocks, the number of its block.

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
