"""Decides which tensors of a checkpoint are masked, by which layout and pattern, and why the others stay dense."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from masksmith import layouts
from masksmith.layouts import Candidate, Layout, LayoutError, Selection, SelectionError
from masksmith.layouts.dtypes import dtype_reason
from masksmith.layouts.layout import SEVERAL_SUMMED_AXES
from masksmith.patterns import Pattern, PatternError, TensorPatterns
from masksmith.patterns.matching import NameMatcher
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client.submission.ties import mask_together

from .checkpoint import Checkpoint
from .scales import scale_of, weight_of_scale
from .stored_values import FLOAT8_DTYPES
from .tensors import Tensor
from .traced import trace, traced_candidates


@dataclass(frozen=True, slots=True)
class ChoiceOptions:
    """Options: which tensors are masked, by which patterns, and their layouts.

    Attributes:
        patterns: Patterns by tensor; None to choose tensors and layouts without patterns.
        layers: Names or globs of the tensors to mask; if empty, all that are not dense by default.
        exclude: Names or globs of the tensors to leave out.
        layouts: Axes, such as `stack in out`, by name or glob.
        trust_remote_code: Whether code that the checkpoint brings may run, to watch the model's forward pass.
        quantised_as_floats: Whether all weights that are quantised entry by entry (int8 with a scale, 8-bit floats) are
            treated as floats; a weight is then 0 where its stored value is 0. If False, only those in
            `Checkpoint.scales` are treated as floats.
        prunes_block_by_block: Whether the model is pruned block by block; weights whose products sum over several axes,
            such as convolutions, then stay dense.
    """

    patterns: TensorPatterns | None = None
    layers: Sequence[str] = ()
    exclude: Sequence[str] = ()
    layouts: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    quantised_as_floats: bool = False
    prunes_block_by_block: bool = False


@dataclass(frozen=True, slots=True)
class ChosenTensor:
    """A tensor of a checkpoint, with the decision whether and how it is masked.

    Attributes:
        name: Its name.
        shape: Its shape.
        dtype: Its dtype.
        layout: How it is made of matrices; None if it has no layout.
        pattern: The pattern that it is masked by; None if it stays dense, or if the options have no patterns.
        reason: Why it stays dense; None if it is masked.
        tied: Other names of the same parameter, stored or not.
        scale: Name of the scale that its stored 8-bit floats are multiplied by; None if there is no scale, or if the
            tensor has another dtype.
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
    def matrix_count(self) -> int:
        """Number of matrices in it; 0 if it has no layout."""
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
            "matrices": self.matrix_count,
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
    """The decisions about all tensors of a checkpoint.

    Attributes:
        tensors: All tensors by name, in the checkpoint's order, those that stay dense included.
        notes: Notes for the user.
    """

    tensors: Mapping[str, ChosenTensor]
    notes: Sequence[str]

    @property
    def masked_tensors(self) -> list[ChosenTensor]:
        """Tensors that are masked."""
        return [tensor for tensor in self.tensors.values() if tensor.reason is None]


def choose(checkpoint: Checkpoint, options: ChoiceOptions) -> Choice:
    """Decide what is done with each tensor.

    Raises:
        InputError: If a name, glob, selector or layout matches no tensor; a layout is malformed; a tensor that is named
            in full cannot be masked; all tensors of a pattern stay dense; there are patterns, but no tensor is
            selected; or tied tensors would be treated differently.
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
            layouts.check_rules_apply(options.patterns, candidates, reasons)
    if patterns is None:
        reasons |= _dtype_and_shape_reasons(candidates, selection)
    candidates, patterns_by_name = _with_ties(checkpoint, candidates, reasons, patterns or {})
    tensors = {
        candidate.name: _chosen_tensor(candidate, checkpoint, reasons, patterns_by_name) for candidate in candidates
    }
    return Choice(tensors, notes + trace_notes)


def candidates_in(checkpoint: Checkpoint, options: ChoiceOptions) -> tuple[list[Candidate], list[str]]:
    """Return the tensors of a checkpoint with their layouts, and notes for the user.

    The notes say for which tensors the model's forward pass shows no layout, and why.

    Raises:
        InputError: If a layout of the options is malformed, or matches no tensor.
    """
    if options.quantised_as_floats:
        names_read_as_float = {name for name in checkpoint.tensors if checkpoint.is_quantised_by_entry(name)}
    else:
        names_read_as_float = set(checkpoint.scales)
    candidates = [
        _candidate(tensor, checkpoint, is_read_as_float=name in names_read_as_float)
        for name, tensor in checkpoint.tensors.items()
    ]
    candidates, notes = _with_traced_layouts(candidates, checkpoint, trust_remote_code=options.trust_remote_code)
    with as_input_errors(LayoutError):
        layouts_by_name = user_layouts(options.layouts, list(checkpoint.tensors))
        candidates = layouts.with_layouts(candidates, layouts_by_name, checkpoint.config)
    return [_with_summed_axes_reason(candidate, options) for candidate in candidates], notes


def _with_summed_axes_reason(candidate: Candidate, options: ChoiceOptions) -> Candidate:
    """Add the reason why a weight whose layout has an axis `kernel` is not pruned block by block."""
    has_reason = candidate.unsupported_reason is not None or candidate.dense_by_default_reason is not None
    has_kernel = candidate.layout is not None and "kernel" in candidate.layout.axes
    if has_reason or not options.prunes_block_by_block or not has_kernel:
        return candidate
    return replace(candidate, unsupported_reason=SEVERAL_SUMMED_AXES)


def _candidate(tensor: Tensor, checkpoint: Checkpoint, *, is_read_as_float: bool) -> Candidate:
    """Return the candidate of a tensor; if the tensor is a weight's scale, with the reason why it is never masked.

    The candidate of a quantised weight that is treated as floats has the dtype F32.
    """
    scaled_weight = weight_of_scale(tensor.name, checkpoint.tensors)
    reason = None if scaled_weight is None else f"the scale of {scaled_weight!r}"
    dtype = "F32" if is_read_as_float else tensor.dtype
    file_format = checkpoint.file_format(tensor.name)
    return Candidate(tensor.name, tensor.shape, dtype, file_format=file_format, unsupported_reason=reason)


def _with_traced_layouts(
    candidates: list[Candidate], checkpoint: Checkpoint, *, trust_remote_code: bool
) -> tuple[list[Candidate], list[str]]:
    """Return the candidates with the layouts and reasons that the model shows (see `trace`), and notes."""
    if checkpoint.config is None:
        return candidates, ["there is no config.json: names and shapes decide the layout"]
    shapes = {candidate.name: candidate.shape for candidate in candidates if candidate.unsupported_reason is None}
    result = trace(checkpoint.folder, shapes, trust_remote_code=trust_remote_code)
    return traced_candidates(candidates, result), result.notes


def user_layouts(texts: Mapping[str, Layout | str], names: Sequence[str]) -> dict[str, Layout]:
    """Parse the user's layouts, and return them by the names of tensors.

    As with patterns, a tensor's full name has precedence over a glob, and of several globs the last one counts.

    Raises:
        InputError: If a name or glob matches no tensor, or a layout is malformed.
    """
    layouts_by_name: dict[str, Layout] = {}
    full_names = set(names)
    # Globs first, since later layouts replace earlier ones.
    for selector, axes in sorted(texts.items(), key=lambda item: item[0] in full_names):
        matcher = NameMatcher(selector, names)
        if matcher.unmatched:
            raise InputError(f"the layout of {selector!r}: no tensor has this name or matches it")
        try:
            layout = axes if isinstance(axes, Layout) else Layout.parse(axes)
        except LayoutError as error:
            raise InputError(f"the layout of {selector!r}: {error}") from None
        layouts_by_name |= {name: layout for name in names if matcher.match(name)}
    return layouts_by_name


def _select(
    candidates: Sequence[Candidate], patterns: Mapping[str, Pattern] | None, options: ChoiceOptions
) -> Selection:
    """Select the tensors to mask; an empty selection is an error only if there are patterns."""
    try:
        return layouts.select(candidates, patterns, list(options.layers), list(options.exclude))
    except SelectionError as error:
        if error.kind == "nothing_left" and patterns is None:
            return Selection([], frozenset(), error.skipped)
        raise InputError(str(error)) from None


def _dtype_and_shape_reasons(candidates: Sequence[Candidate], selection: Selection) -> dict[str, str]:
    """Return why selected tensors cannot be masked, by name; `select` checks dtypes and shapes only with patterns."""
    chosen_names = set(selection.chosen)
    reasons: dict[str, str] = {}
    for candidate in candidates:
        if candidate.name not in chosen_names:
            continue
        reason = dtype_reason(candidate.dtype, named=candidate.name in selection.named)
        if len(candidate.shape) < 2:
            reason = "fewer than two dimensions"
        if reason is not None:
            reasons[candidate.name] = reason
    return reasons


def _with_ties(
    checkpoint: Checkpoint, candidates: Sequence[Candidate], reasons: dict[str, str], patterns: Mapping[str, Pattern]
) -> tuple[list[Candidate], dict[str, Pattern | None]]:
    """Mask all stored names of a parameter if one of them is masked; remove these names from `reasons`, in place.

    Returns:
        The candidates; and the pattern of each tensor, by name; None for a tensor without one. A name that is masked
        because of another name gets the layout and pattern of that other name.

    Raises:
        InputError: If one of the names is excluded, or they have different patterns or layouts.
    """
    patterns_by_name: dict[str, Pattern | None] = {name: patterns.get(name) for name in checkpoint.tensors}
    layout_of = {candidate.name: candidate.layout for candidate in candidates}
    masked_of = mask_together(_tie_groups(checkpoint), reasons, patterns_by_name, layout_of)
    patterns_by_name |= {added: patterns_by_name[masked] for added, masked in masked_of.items()}
    return [
        replace(candidate, layout=layout_of[masked_of.get(candidate.name, candidate.name)]) for candidate in candidates
    ], patterns_by_name


def _tie_groups(checkpoint: Checkpoint) -> list[list[str]]:
    """Return all stored names of each parameter that has several."""
    groups: dict[str, list[str]] = {}
    for name, first in checkpoint.ties.items():
        groups.setdefault(first, [first]).append(name)
    return list(groups.values())


def _chosen_tensor(
    candidate: Candidate,
    checkpoint: Checkpoint,
    reasons: Mapping[str, str],
    patterns_by_name: Mapping[str, Pattern | None],
) -> ChosenTensor:
    name, layout, reason = candidate.name, candidate.layout, reasons.get(candidate.name)
    tensor, tied = checkpoint.tensors[name], checkpoint.tied_to(name)
    pattern = patterns_by_name[name] if reason is None else None
    scale = scale_of(name, checkpoint.tensors) if tensor.dtype in FLOAT8_DTYPES else None
    return ChosenTensor(
        name, tensor.shape, tensor.dtype, layout, pattern, reason, tied, None if scale is None else scale.name
    )
