"""Prepare a masks job before anything is sent: read and select weights, parse the pattern, validate options."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from pydantic import ValidationError

from masksmith.layouts import Candidate, Layout, check_rules_apply, with_layouts
from masksmith.patterns import Budget, Channels, Pattern, PatternError, PatternsByTensor, TensorPatterns, parse
from masksmith_client._errors import InputError, as_input_errors
from masksmith_wire.documents import (
    LayoutInput,
    MasksOptions,
    MasksRequest,
    Skipped,
    SolverName,
    StatisticInput,
    TensorInput,
)
from masksmith_wire.names import JobDescription, default_name
from masksmith_wire.priorities import Priority, PriorityName
from masksmith_wire.specification import JobSpecification, SpecificationError

from .description import describe, subject_of_weights
from .input_weights import read_weights
from .previous_masks import masks_upload, parse_previous
from .selection import candidates_of, select
from .statistics import AuxiliaryTensors, CalibrationReader
from .streamed_tensor import KEY, Restore, StreamedTensor, flattened

MAX_NAME_LENGTH = 512
INTERACTIVE_BYTES = 64 * 2**20
"""Size of the weights of a job up to which somebody is assumed to wait for it."""


class SubmitOptions(TypedDict, total=False):
    """Options of a masks job, besides weights and pattern.

    Attributes:
        solver: `auto`, `exact`, `min-cost-flow`, `greedy`, `sinkhorn`, `enumerate` or `top-k`.
        scores: `magnitude` of the weights; `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`, which need a
            calibration; or `given`: the tensors are non-negative scores. Options follow the name: `"ria power=0.7"`.
        calibration: The result of `ms.calibrate`, the path of a saved calibration, or a mapping of names to the
            statistics that the scores are computed from; with `given` scores, the scores.
        budget: Density of all weights together, such as `"50%"`, or a `Budget` with floors. It is allocated to the
            weights so that the total score kept is maximal; with n:m patterns each weight gets its own n.
        floors: Minimum densities of the weights that match a glob: `["*.query*=25%"]`.
        update: Method that updates the kept weights: `reconstruct` or `admm`, with options as in `"admm penalty=0.1"`.
            Needs a calibration with Gram matrices; `job.weights()` downloads the result.
        previous: A previous job (or its id), its masks, the path of a masks file, or the reference of one or of an
            output in a root, such as `s3://pruned/llama`; reports count changed entries.
        spectrum: Whether to measure singular values of the masked weights, which needs a decomposition of each.
        axis: Dimension along which plain N:M groups run: `in` or `out`.
        ragged: Treatment of edges that no whole tile covers: `pad`, `dense` or `error`.
        view: How convolutions are viewed as matrices: `channels-last`, or `flat`, which sends them as
            `[out, in * kh * kw]`; the masks file then has that shape, too.
        layout: How weights are made of matrices, by name, where modules, names and shapes do not show it: a word for
            each dimension, such as `"in out"` for a transposed weight or `"stack out in"` for stacked experts.
        layers: Names or globs of the weights to mask; default every matrix of the model's blocks.
        exclude: Names or globs of weights to leave out.
        trust_remote_code: Whether code that a checkpoint brings may run, to watch the model's forward pass.
        time_limit_s: Time limit for solving; the best mask at that time is kept, with its gap.
        name: Name of the job, shown in lists; default the file or directory, and the pattern.
        labels: Labels that the job can be found by in lists, such as `{"team": "vision"}`.
        priority: Its priority among the jobs of the same key: `interactive`, `normal` or `batch`, and at most the
            highest that the key may have. Default `interactive` for up to 64 MiB of weights, else `normal`.
    """

    solver: SolverName
    scores: str
    calibration: object
    budget: str | Budget | None
    floors: Sequence[str]
    update: str | None
    previous: object
    spectrum: bool
    axis: Literal["in", "out"]
    ragged: Literal["pad", "dense", "error"]
    view: Literal["channels-last", "flat"]
    layout: Mapping[str, Layout | str] | None
    layers: str | Sequence[str] | None
    exclude: str | Sequence[str] | None
    trust_remote_code: bool
    time_limit_s: float | None
    name: str | None
    labels: Mapping[str, str] | None
    priority: PriorityName | None


@dataclass(frozen=True)
class PreparedJob:
    """Selected weights and validated options of one job.

    Attributes:
        weights: The weights to mask.
        skipped: Weights that are not sent, with the reason.
        specification: Parsed options, with the pattern that most weights have.
        patterns: The pattern of each weight.
        auxiliary: Statistics and Gram matrices of the weights.
        previous: Path of a masks file to compare with.
        description: Name and labels; without a name, the service chooses one.
        notes: What was odd about the weights' checkpoint.
        idempotency_key: Sent with every attempt, so that the service creates one job.
    """

    weights: list[StreamedTensor]
    skipped: list[Skipped]
    specification: JobSpecification
    patterns: Mapping[str, Pattern]
    auxiliary: AuxiliaryTensors = field(default_factory=AuxiliaryTensors)
    previous: Path | None = None
    description: JobDescription = field(default_factory=JobDescription)
    notes: Sequence[str] = ()
    idempotency_key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def uploads(self) -> list[StreamedTensor]:
        """All tensors to upload, in this order: weights, statistics, Gram matrices, previous masks."""
        statistics = (statistic.tensor for statistic in self.auxiliary.statistics.values())
        previous = [] if self.previous is None else [masks_upload(self.previous)]
        return [*self.weights, *statistics, *self.auxiliary.grams.values(), *previous]

    @property
    def total_bytes(self) -> int:
        """Bytes to send if the service has none of the tensors."""
        return sum(tensor.file_bytes for tensor in self.uploads)

    @property
    def restore(self) -> dict[str, Restore]:
        """Per weight, the function that converts a numpy mask to the weight's framework and device."""
        return {weight.name: weight.restore for weight in self.weights}

    @property
    def requested(self) -> dict[str, tuple[tuple[int, ...], str | None]]:
        """Shape and pattern of each weight, against which results are checked; no pattern if a budget assigns it."""
        has_budget = self.specification.budget is not None
        return {
            weight.name: (weight.shape, None if has_budget else str(self.patterns[weight.name]))
            for weight in self.weights
        }

    def request(self, digests: Sequence[str]) -> MasksRequest:
        """Build the job document; `digests` are those of `uploads`, in the same order."""
        statistics, grams = self.auxiliary.statistics, self.auxiliary.grams
        statistic_digests = dict(zip(statistics, digests[len(self.weights) :], strict=False))
        gram_digests = dict(zip(grams, digests[len(self.weights) + len(statistics) :], strict=False))
        kinds = {name: statistic.kind for name, statistic in statistics.items()}
        layouts = layouts_to_send(self.weights)
        inputs = [
            TensorInput(
                name=weight.name,
                digest=digest,
                key=KEY,
                statistic=_statistic_input(weight.name, kinds, statistic_digests),
                gram=_statistic_input(weight.name, dict.fromkeys(grams, "gram"), gram_digests),
                layout=layouts.get(weight.name),
                pattern=self._own_pattern(weight.name),
            )
            for weight, digest in zip(self.weights, digests, strict=False)
        ]
        options = self.specification.options.model_dump()
        if self.previous is not None:
            options["previous"] = digests[-1]
        return MasksRequest(tensors=inputs, **options, **self.description.model_dump(exclude_defaults=True))

    @property
    def pattern_text(self) -> str:
        """The patterns in one text, each once."""
        return ", ".join(dict.fromkeys(str(self.patterns[weight.name]) for weight in self.weights))

    def _own_pattern(self, name: str) -> str | None:
        """The text of a weight's pattern, if it is not the job's."""
        text = str(self.patterns[name])
        return None if text == self.specification.options.pattern else text


def layouts_to_send(weights: Sequence[StreamedTensor]) -> dict[str, LayoutInput]:
    """Make the layout documents of weights, except where the service, which sees these alone, decides the same."""
    by_rules = with_layouts([Candidate(weight.name, weight.shape, weight.dtype) for weight in weights])
    own = {candidate.name: candidate.layout for candidate in by_rules}
    return {
        weight.name: LayoutInput.of(weight.layout)
        for weight in weights
        if weight.layout is not None and weight.layout != own[weight.name]
    }


def _statistic_input(name: str, kinds: Mapping[str, str], digests: Mapping[str, str]) -> StatisticInput | None:
    if name not in digests:
        return None
    return StatisticInput.model_validate({"kind": kinds[name], "digest": digests[name], "key": KEY})


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
    """Read and select the weights, parse the pattern and validate all options.

    Args:
        weights: A mapping of names to torch tensors or numpy arrays, a torch module, or a path: a `.safetensors`
            file, a sharded checkpoint's index, or the directory of either.
        pattern: Such as `"transposable 8:16"`, or a pattern object; or several, see `Client.solve`.
        layers: See `SubmitOptions`.
        exclude: See `SubmitOptions`.
        layout: See `SubmitOptions`.
        calibration: See `SubmitOptions`.
        previous: See `SubmitOptions`.
        view: See `SubmitOptions`.
        trust_remote_code: See `SubmitOptions`.
        name: See `SubmitOptions`.
        labels: See `SubmitOptions`.
        priority: See `SubmitOptions`.
        local: Whether the job is solved in this process, where the service's size limits do not apply.
        options: See `SubmitOptions`.

    Raises:
        InputError: If an argument is invalid.
    """
    description = describe(name, labels, priority)
    previous_job, previous_file = parse_previous(previous)
    by_tensor = _read_patterns(pattern, options)
    options = _own_options(pattern) | options
    specification = specify(by_tensor.first, previous=previous_job, **options)
    read = read_weights(weights, trust_remote_code=trust_remote_code)
    model = _apply_view(read.tensors, view, specification)
    scores, update = specification.scores, specification.update
    statistics = CalibrationReader(calibration, scores, {weight.name for weight in model}, update)
    candidates = candidates_of(model, layout)
    patterns = _assign(by_tensor, [candidate.name for candidate in candidates], specification)
    fitting = specification.fitting_pattern if by_tensor.is_single else patterns
    binding = (lambda pattern: None) if local else specification.binding
    selection = select(candidates, fitting, layers, exclude, binding=binding, in_parts=not local)
    with as_input_errors(PatternError):
        check_rules_apply(by_tensor, [candidate.name for candidate in candidates], selection.skipped)
    selected = set(selection.chosen)
    masked = [
        replace(weight, layout=candidate.layout)
        for weight, candidate in zip(model, candidates, strict=True)
        if weight.name in selected
    ]
    for weight in masked:
        if len(weight.name) > MAX_NAME_LENGTH:
            raise InputError(f"the name {weight.name[:60]!r}... is longer than {MAX_NAME_LENGTH} characters")
    auxiliary, uncalibrated = statistics.match(masked, selection.named)
    solvable = [weight for weight in masked if weight.name not in uncalibrated]
    reasons = selection.skipped | uncalibrated
    skipped = [Skipped(name=weight.name, reason=reasons[weight.name]) for weight in model if weight.name in reasons]
    _refuse_layouts(solvable, specification)
    if specification.budget is not None:
        with as_input_errors(PatternError):
            specification.budget.check({weight.name: weight.shape for weight in solvable}, specification.pattern)
    if update is not None and scores.name == "given" and not auxiliary.statistics:
        raise InputError("the tensors are scores, but an update needs weights: pass the scores as the calibration")
    if priority is None and sum(weight.file_bytes for weight in solvable) <= INTERACTIVE_BYTES:
        description = description.model_copy(update={"priority": Priority.INTERACTIVE})
    prepared = PreparedJob(
        solvable, skipped, specification, patterns, auxiliary, previous_file, description, read.notes
    )
    return prepared if name is not None else replace(prepared, description=_named(prepared, weights))


def _named(prepared: PreparedJob, weights: object) -> JobDescription:
    """Description of a job with the default name, if it is known where the weights are from."""
    subject = subject_of_weights(weights)
    name = None if subject is None else default_name(subject, prepared.pattern_text)
    return prepared.description.model_copy(update={"name": name})


def _read_patterns(pattern: PatternsByTensor, options: Mapping[str, Any]) -> TensorPatterns:
    with as_input_errors(PatternError):
        return TensorPatterns.of(pattern, options.get("axis", "in"), options.get("ragged", "pad"))


def _own_options(pattern: PatternsByTensor) -> dict[str, Any]:
    """Axis and ragged of pattern objects; those of texts are options. The text of `Channels` says its axis."""
    values = pattern.values() if isinstance(pattern, Mapping) else [pattern]
    patterns = [one for one in values if isinstance(one, Pattern)]
    if not patterns:
        return {}
    axis = next((one.axis for one in patterns if one.axis != "in" and not isinstance(one, Channels)), "in")
    return {"axis": axis, "ragged": next((one.ragged for one in patterns if one.ragged != "pad"), "pad")}


def _assign(by_tensor: TensorPatterns, names: Sequence[str], specification: JobSpecification) -> dict[str, Pattern]:
    """Return each weight its pattern.

    Raises:
        InputError: If a pattern is for no weight, does not go with the options, or has another axis or treatment of
            edges than the others, which the wire has for the whole job.
    """
    with as_input_errors(PatternError, SpecificationError):
        own = [(pattern, specification.with_own_pattern(str(pattern)).pattern) for pattern in by_tensor.rules.values()]
        for pattern, sent in [(by_tensor.first, specification.pattern), *own]:
            if sent != pattern:
                raise InputError(f"{str(pattern)!r}: all patterns of a job have one axis and one ragged")
        return by_tensor.assign(names)


def _refuse_layouts(weights: list[StreamedTensor], specification: JobSpecification) -> None:
    """Refuse budgets of tensors that are not a single matrix, stored row by row."""
    for weight in weights if specification.budget is not None else ():
        layout = weight.layout
        if layout is not None and not layout.is_plain(specification.fitting_pattern, weight.shape):
            raise InputError(f"{weight.name!r}: a budget does not go with its layout {str(layout)!r}; exclude it")


def _apply_view(model: list[StreamedTensor], view: str, specification: JobSpecification) -> list[StreamedTensor]:
    if view == "channels-last":
        return model
    if view != "flat":
        raise InputError(f"view={view!r} is not one of: channels-last, flat")
    if specification.scores.name not in ("magnitude", "given") or specification.update is not None:
        raise InputError(
            "calibrations of convolutions are channels-last: view='flat' supports magnitude or given scores only"
        )
    return [flattened(weight) for weight in model]


def specify(pattern: Pattern, **options: Any) -> JobSpecification:
    """Parse and validate a pattern and options by the service's own rules.

    Raises:
        InputError: If a value is invalid; the message names it.
        TypeError: If an option does not exist.
    """
    unknown = options.keys() - (MasksOptions.model_fields.keys() - {"calibration"}) - {"pattern"}
    if unknown:
        raise TypeError(f"unexpected option {sorted(unknown)[0]!r}")
    if isinstance(options.get("budget"), Budget):
        options |= options["budget"].texts()
    try:
        validated = MasksOptions(pattern=str(pattern), **options)
    except ValidationError as error:
        raise InputError(_first_error(error, options)) from None
    with as_input_errors(SpecificationError):
        return JobSpecification.parse(validated)


def parse_pattern(
    text: str, axis: Literal["in", "out"] = "in", ragged: Literal["pad", "dense", "error"] = "pad"
) -> Pattern:
    """Parse a pattern string.

    Raises:
        InputError: If the text is not a pattern.
    """
    with as_input_errors(PatternError):
        return parse(text, axis=axis, ragged=ragged)


def _first_error(error: ValidationError, options: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name == "solver":
        return f"solver={options[name]!r} is not one of: {', '.join(get_args(SolverName))}"
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}"
    return f"{name}={options.get(name)!r}: {first['msg'].lower()}"
