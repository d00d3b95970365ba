"""Which tensors of a checkpoint are masked, along which axis and under which pattern, and why the others are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from masksmith import layouts
from masksmith.layouts import Candidate, Layout, LayoutError, Selection, SelectionError
from masksmith.layouts.dtypes import dtype_reason
from masksmith.layouts.selection import EXCLUDED
from masksmith.patterns import Pattern, PatternError, TensorPatterns
from masksmith.patterns.matching import Names
from masksmith_client._errors import InputError, as_input_errors

from .checkpoint import Checkpoint
from .scales import scale_of, scaled_by
from .stored_values import FLOAT8_DTYPES
from .tensors import Tensor
from .traced import trace, traced_candidates


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """Options: which tensors are masked, by which patterns, and their layouts.

    Attributes:
        patterns: Their patterns; None where only the layout is wanted.
        layers: Names or globs of those to mask.
        exclude: Names or globs of those to leave out.
        layouts: Axes by name or glob, such as `stack in out`.
        trust_remote_code: Whether code that the checkpoint brings may run, to watch the model's forward pass.
        by_value: Whether quantised weights of one entry each (int8 beside a scale, 8-bit floats) count like floats:
            their zeros are those of the weights.
    """

    patterns: TensorPatterns | None = None
    layers: Sequence[str] = ()
    exclude: Sequence[str] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    by_value: bool = False


@dataclass(frozen=True, slots=True)
class ChosenTensor:
    """A tensor of a checkpoint, and what is to be done with it.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Its dtype.
        layout: How it is made of matrices; None where it is not.
        pattern: The pattern that it is masked by; None for a tensor that stays dense.
        reason: Why it stays dense; None if it is masked.
        tied: Names of the same parameter, stored or not.
        scale: Name of the scale that its stored numbers are read through; None if they are its values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: Layout | None
    pattern: Pattern | None
    reason: str | None
    tied: tuple[str, ...] = ()
    scale: str | None = None

    @property
    def matrices(self) -> int:
        """Number of matrices in it."""
        return 0 if self.layout is None else self.layout.count(self.shape)

    def document(self) -> dict[str, Any]:
        """Return its JSON form."""
        layout = self.layout
        return {
            "name": self.name,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "axes": None if layout is None else str(layout),
            "out_parts": [] if layout is None else list(layout.out_parts),
            "matrices": self.matrices,
            "rule": None if layout is None else layout.rule,
            "tied": list(self.tied),
            "scale": self.scale,
            "masked": self.reason is None,
            "pattern": None if self.pattern is None else str(self.pattern),
            "axis": None if self.pattern is None else self.pattern.axis,
            "ragged": None if self.pattern is None else self.pattern.ragged,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """What is done with each tensor, in the checkpoint's order, and notes for the user."""

    tensors: Mapping[str, ChosenTensor]
    notes: Sequence[str]

    @property
    def masked(self) -> list[ChosenTensor]:
        """Tensors that are masked."""
        return [tensor for tensor in self.tensors.values() if tensor.reason is None]


def choose(checkpoint: Checkpoint, options: ChoiceOptions) -> Choice:
    """Decide what is done with each tensor.

    Raises:
        InputError: If a name, glob or layout is for no tensor, or a spelled-out tensor cannot be masked.
    """
    notes = list(checkpoint.notes)
    candidates, trace_notes = candidates_in(checkpoint, options)
    names = [candidate.name for candidate in candidates]
    with as_input_errors(PatternError):
        patterns = None if options.patterns is None else options.patterns.assign(names)
    selection = _select(candidates, patterns, options)
    reasons = dict(selection.skipped)
    if options.patterns is not None:
        with as_input_errors(PatternError):
            layouts.check_rules_apply(options.patterns, names, reasons)
    if patterns is None:
        reasons |= _dtype_reasons(candidates, selection)
    assigned = _with_ties(checkpoint, reasons, patterns or {})
    tensors = {each.name: _chosen(each, checkpoint, reasons, assigned) for each in candidates}
    return Choice(tensors, notes + trace_notes)


def candidates_in(checkpoint: Checkpoint, options: ChoiceOptions) -> tuple[list[Candidate], list[str]]:
    """Return the tensors of a checkpoint with their layouts, and what could not be seen.

    Raises:
        InputError: If a layout of the options is malformed, or for no tensor.
    """
    scales = {} if options.by_value else checkpoint.scales
    plain = [
        _candidate(
            tensor, checkpoint, is_float=checkpoint.is_quantised_entry(name) if options.by_value else name in scales
        )
        for name, tensor in checkpoint.tensors.items()
    ]
    traced, notes = _traced(plain, checkpoint, trust_remote_code=options.trust_remote_code)
    with as_input_errors(LayoutError):
        layouts_by_name = user_layouts(options.layouts, list(checkpoint.tensors))
        return layouts.with_layouts(traced, layouts_by_name, checkpoint.config), notes


def _candidate(tensor: Tensor, checkpoint: Checkpoint, *, is_float: bool) -> Candidate:
    """Describe a tensor by the numbers that it is read as; one that is the scale of a weight is never masked."""
    scaled = scaled_by(tensor.name, checkpoint.tensors)
    reason = None if scaled is None else f"the scale of {scaled!r}"
    dtype = "F32" if is_float else tensor.dtype
    file_format = checkpoint.file_format(tensor.name)
    return Candidate(tensor.name, tensor.shape, dtype, file_format=file_format, unsupported_reason=reason)


def _traced(
    candidates: list[Candidate], checkpoint: Checkpoint, *, trust_remote_code: bool
) -> tuple[list[Candidate], list[str]]:
    """Return candidates with the layouts that a forward pass of the model shows, if the model can be run."""
    if checkpoint.config is None:
        return candidates, ["there is no config.json: names and shapes decide the layout"]
    shapes = {each.name: each.shape for each in candidates if each.unsupported_reason is None}
    traced = trace(checkpoint.folder, shapes, trust_remote_code=trust_remote_code)
    return traced_candidates(candidates, traced), traced.notes


def user_layouts(texts: Mapping[str, str], names: Sequence[str]) -> dict[str, Layout]:
    """Parse the user's layouts, and return them by the names of tensors.

    Raises:
        InputError: If one is for no tensor.
        LayoutError: If one is malformed.
    """
    parsed: dict[str, Layout] = {}
    for selector, axes in texts.items():
        matcher = Names(selector, names)
        if matcher.unmatched:
            raise InputError(f"--layout {selector!r}=...: no tensor has this name or matches it")
        layout = Layout.parse(axes)
        parsed |= {name: layout for name in names if matcher.match(name)}
    return parsed


def _select(
    candidates: Sequence[Candidate], patterns: Mapping[str, Pattern] | None, options: ChoiceOptions
) -> Selection:
    try:
        return layouts.select(candidates, patterns, list(options.layers), list(options.exclude))
    except SelectionError as error:
        if error.kind == "nothing_left" and patterns is None:
            return Selection([], frozenset(), error.skipped)
        raise InputError(str(error)) from None


def _dtype_reasons(candidates: Sequence[Candidate], selection: Selection) -> dict[str, str]:
    chosen = set(selection.chosen)
    reasons = {
        each.name: dtype_reason(each.dtype, named=each.name in selection.named)
        for each in candidates
        if each.name in chosen
    }
    few = {each.name: "fewer than two dimensions" for each in candidates if len(each.shape) < 2 and each.name in chosen}
    return {name: reason for name, reason in reasons.items() if reason is not None} | few


def _with_ties(
    checkpoint: Checkpoint, reasons: dict[str, str], patterns: Mapping[str, Pattern]
) -> dict[str, Pattern | None]:
    """Mask all names of a parameter if one is masked; returns each tensor's pattern, and removes their reasons.

    Raises:
        InputError: If one of the names is excluded, or they have different patterns.
    """
    assigned: dict[str, Pattern | None] = {name: patterns.get(name) for name in checkpoint.tensors}
    for group in _tie_groups(checkpoint):
        masked = [name for name in group if name not in reasons]
        if not masked:
            continue
        for name in group:
            if reasons.get(name) == EXCLUDED:
                raise InputError(f"{name!r} is excluded, and it is tied to {masked[0]!r}, which is masked")
            if name in masked and assigned[name] != assigned[masked[0]]:
                raise InputError(f"{name!r} and {masked[0]!r} are tied, and their patterns differ")
            reasons.pop(name, None)
            assigned[name] = assigned[masked[0]]
    return assigned


def _tie_groups(checkpoint: Checkpoint) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, first in checkpoint.ties.items():
        groups.setdefault(first, [first]).append(name)
    return list(groups.values())


def _chosen(
    candidate: Candidate, checkpoint: Checkpoint, reasons: Mapping[str, str], assigned: Mapping[str, Pattern | None]
) -> ChosenTensor:
    name, layout, reason = candidate.name, candidate.layout, reasons.get(candidate.name)
    tensor, tied = checkpoint.tensors[name], checkpoint.tied_to(name)
    pattern = assigned[name] if reason is None else None
    scale = scale_of(name, checkpoint.tensors) if tensor.dtype in FLOAT8_DTYPES else None
    return ChosenTensor(
        name, tensor.shape, tensor.dtype, layout, pattern, reason, tied, None if scale is None else scale.name
    )
