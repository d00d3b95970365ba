"""Prepare a masks job before anything is sent: read and select weights, assign patterns, check the options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from masksmith.layouts import Candidate, Layout, Selection, check_rules_apply
from masksmith.patterns import Pattern, PatternError, PatternsByTensor, TensorPatterns
from masksmith_client._errors import InputError, as_input_errors
from masksmith_wire.documents import Skipped
from masksmith_wire.names import JobDescription, default_name
from masksmith_wire.priorities import Priority, PriorityName
from masksmith_wire.specification import JobSpecification, SpecificationError

from .description import describe, subject_of_weights
from .input_weights import read_weights
from .options import options_of_patterns, specify
from .overlaps import check_masked_once
from .prepared_job import PreparedJob
from .previous_masks import parse_previous
from .selection import candidates_of, select
from .statistics import AuxiliaryTensors, CalibrationReader
from .streamed_tensor import StreamedTensor, flattened
from .ties import check_counted_once, others_by_name, select_ties

MAX_TENSOR_NAME_LENGTH = 512
"""Largest number of characters of a tensor's name that the service accepts."""
INTERACTIVE_BYTES = 64 * 2**20
"""Size of a job's weights up to which the job's default priority is `interactive`: such a job is short, and a user may
be waiting for it."""


def prepare(
    weights: object,
    pattern: PatternsByTensor,
    *,
    layers: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    layout: Mapping[str, Layout | str] | None = None,
    calibration: object = None,
    previous: object = None,
    view: Literal["channels-last", "flat"] = "channels-last",
    trust_remote_code: bool = False,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    priority: PriorityName | None = None,
    local: bool = False,
    **options: Any,
) -> PreparedJob:
    """Read and select the weights, assign patterns to them, and validate all options.

    The arguments are those of `Client.solve` and `SubmitOptions`. With `local`, the job is solved in this process,
    where the service's size limits do not apply.

    Raises:
        InputError: If an argument is invalid.
        TypeError: If an option does not exist.
    """
    description = describe(name, labels, priority)
    previous_job, previous_file = parse_previous(previous)
    rules = _read_patterns(pattern, options)
    specification = specify(rules.first, previous=previous_job, **(options_of_patterns(pattern) | options))
    model = read_weights(weights, trust_remote_code=trust_remote_code)
    tensors, layout = _apply_view(model.tensors, layout or {}, view, specification)
    names = {weight.name for weight in tensors}
    ties = others_by_name(model.ties)
    calibration_reader = CalibrationReader(calibration, specification.scores, names, specification.update, ties)
    candidates = candidates_of(tensors, layout)
    patterns = _assign(rules, [candidate.name for candidate in candidates], specification)
    selection = _select(candidates, rules, patterns, specification, layers, exclude, local=local)
    candidates, selection, patterns = select_ties(model.ties, candidates, selection, patterns)
    check_masked_once(model.overlaps, selection.chosen, ties)
    masked = _selected_weights(tensors, candidates, selection)
    auxiliary, reasons_of_missing_statistics = calibration_reader.match(masked, selection.named)
    solvable = [weight for weight in masked if weight.name not in reasons_of_missing_statistics]
    _check_options(solvable, specification, auxiliary)
    if specification.budget is not None:
        check_counted_once(model.ties, solvable)
    prepared = PreparedJob(
        solvable,
        _skipped(tensors, selection.skipped | reasons_of_missing_statistics),
        specification,
        patterns,
        auxiliary,
        previous_file,
        description if priority is not None else _with_default_priority(description, solvable),
        model.notes,
    )
    return prepared if name is not None else replace(prepared, description=_with_default_name(prepared, weights))


def _read_patterns(pattern: PatternsByTensor, options: Mapping[str, Any]) -> TensorPatterns:
    with as_input_errors(PatternError):
        return TensorPatterns.of(pattern, options.get("axis", "in"), options.get("ragged", "pad"))


def _apply_view(
    tensors: list[StreamedTensor], layouts: Mapping[str, Layout | str], view: str, specification: JobSpecification
) -> tuple[list[StreamedTensor], Mapping[str, Layout | str]]:
    """Flatten convolutions if the view is `flat`.

    Args:
        tensors: All tensors.
        layouts: Layouts that the caller sets, by name.
        view: The option `view`.
        specification: The job's specification.

    Returns:
        The tensors, and the layouts of those that are not flattened.

    Raises:
        InputError: If the view is unknown, the scores or the update do not support it, or a layout is invalid.
    """
    if view == "channels-last":
        return tensors, layouts
    if view != "flat":
        raise InputError(f"view={view!r} is not one of: channels-last, flat")
    if specification.scores.name not in ("magnitude", "given") or specification.update is not None:
        raise InputError(
            "calibrations of convolutions are channels-last: view='flat' supports magnitude or given scores only, "
            "and no update"
        )
    viewed = [
        _flat_view(weight, candidate.layout)
        for weight, candidate in zip(tensors, candidates_of(tensors, layouts), strict=True)
    ]
    shapes = {weight.name: weight.shape for weight in tensors}
    flat_names = {weight.name for weight in viewed if weight.shape != shapes[weight.name]}
    return viewed, {name: layout for name, layout in layouts.items() if name not in flat_names}


def _flat_view(weight: StreamedTensor, layout: Layout | None) -> StreamedTensor:
    """Return a convolution as a flat matrix; a tensor without kernel dimensions, such as a stack, is not changed."""
    if layout is None or "kernel" not in layout.axes:
        return weight
    if layout.is_transposed:
        return replace(weight, unsupported_reason=f"the layout {str(layout)!r} has no flat view")
    return flattened(weight)


def _assign(rules: TensorPatterns, names: Sequence[str], specification: JobSpecification) -> dict[str, Pattern]:
    """Return the pattern of each weight.

    Raises:
        InputError: If a rule selects no weight; the options do not allow a pattern; or the patterns do not all have the
            same `axis` and `ragged`, which a job document has once, for all its patterns.
    """
    with as_input_errors(PatternError, SpecificationError):
        # The text of a pattern has neither `axis` nor `ragged`: the parsed text gets those of the job.
        pattern_pairs = [
            (pattern, specification.with_own_pattern(str(pattern)).pattern) for pattern in rules.rules.values()
        ]
        for pattern, pattern_of_document in [(rules.first, specification.pattern), *pattern_pairs]:
            if pattern_of_document != pattern:
                raise InputError(f"{str(pattern)!r}: all patterns of a job must have the same axis and ragged")
        return rules.assign(names)


def _select(
    candidates: Sequence[Candidate],
    rules: TensorPatterns,
    patterns: Mapping[str, Pattern],
    specification: JobSpecification,
    layers: str | Sequence[str] | None,
    exclude: str | Sequence[str] | None,
    *,
    local: bool,
) -> Selection:
    patterns_to_fit = specification.fitting_pattern if rules.is_single else patterns
    # A local job is solved as a whole; in the service, tensors that cannot be cut into parts have a size limit.
    whole_tensor_needed_by = (lambda pattern: None) if local else specification.whole_tensor_needed_by
    selection = select(
        candidates, patterns_to_fit, layers, exclude, whole_tensor_needed_by=whole_tensor_needed_by, in_parts=not local
    )
    with as_input_errors(PatternError):
        check_rules_apply(rules, candidates, selection.skipped)
    return selection


def _selected_weights(
    tensors: Sequence[StreamedTensor], candidates: Sequence[Candidate], selection: Selection
) -> list[StreamedTensor]:
    """Return the selected weights, with the layouts that were determined for them.

    Raises:
        InputError: If the name of one is too long.
    """
    names = set(selection.chosen)
    chosen = [
        replace(weight, layout=candidate.layout)
        for weight, candidate in zip(tensors, candidates, strict=True)
        if weight.name in names
    ]
    for weight in chosen:
        if len(weight.name) > MAX_TENSOR_NAME_LENGTH:
            raise InputError(f"the name {weight.name[:60]!r}... is longer than {MAX_TENSOR_NAME_LENGTH} characters")
    return chosen


def _skipped(tensors: Sequence[StreamedTensor], reasons: Mapping[str, str]) -> list[Skipped]:
    return [Skipped(name=weight.name, reason=reasons[weight.name]) for weight in tensors if weight.name in reasons]


def _check_options(
    weights: Sequence[StreamedTensor], specification: JobSpecification, auxiliary: AuxiliaryTensors
) -> None:
    """Check the budget and the update against the weights.

    Raises:
        InputError: If the budget does not fit a weight or its layout, or the update has scores instead of weights.
    """
    budget, update = specification.budget, specification.update
    if budget is not None:
        for weight in weights:
            layout = weight.layout
            if layout is not None and not layout.is_plain(specification.fitting_pattern, weight.shape):
                raise InputError(f"{weight.name!r}: a budget does not go with its layout {str(layout)!r}; exclude it")
        with as_input_errors(PatternError):
            budget.check({weight.name: weight.shape for weight in weights}, specification.pattern)
    if update is not None and specification.scores.name == "given" and not auxiliary.statistics:
        raise InputError("the tensors are scores, but an update needs weights: pass the scores as the calibration")


def _with_default_priority(description: JobDescription, weights: Sequence[StreamedTensor]) -> JobDescription:
    """Return the description with the priority `interactive` if the weights are small, else unchanged."""
    if sum(weight.file_bytes for weight in weights) > INTERACTIVE_BYTES:
        return description
    return description.model_copy(update={"priority": Priority.INTERACTIVE})


def _with_default_name(prepared: PreparedJob, weights: object) -> JobDescription:
    """Return the job's description with the default name, or without a name if the weights' origin is unknown."""
    subject = subject_of_weights(weights)
    name = None if subject is None else default_name(subject, prepared.pattern_text)
    return prepared.description.model_copy(update={"name": name})
