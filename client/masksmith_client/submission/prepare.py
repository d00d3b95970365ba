"""What a submission consists of, worked out before anything is sent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from pydantic import ValidationError

from masksmith.layouts import Layout, default_axes
from masksmith.patterns import Budget, Pattern, PatternError, parse
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
from masksmith_wire.specification import JobSpecification, SpecificationError

from .files import read_path
from .modules import with_module_layouts
from .previous_masks import masks_upload, previous_of
from .selection import candidates_of, select
from .statistics import Calibration, Chosen
from .tensors import read_mapping
from .weights import KEY, Restore, Weight, flattened

MAX_NAME_LENGTH = 512


class SubmitOptions(TypedDict, total=False):
    """What a job may be told besides weights and pattern.

    Attributes:
        solver: `auto`, `exact`, `min-cost-flow`, `greedy`, `sinkhorn`, `enumerate` or `top-k`.
        scores: `magnitude` of the weights; `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`, which need a
            calibration; or `given`: the tensors are non-negative scores already. Options follow: `"ria power=0.7"`.
        calibration: What `ms.calibrate` gathered, or the path where it was saved, or a mapping of names to what the
            scores are made from; with `given` scores, the scores.
        budget: Share kept of all weights together, such as `"50%"` or a `Budget` with its floors; it is shared out over
            the weights so that the most score is kept. Of n:m patterns every weight gets an n of its own.
        floors: Least shares of the weights whose names a glob meets: `["*.query*=25%"]`.
        update: What becomes of the kept weights: `reconstruct` or `admm`, with options as in `"admm penalty=0.1"`.
            Needs a calibration with Gram matrices; `job.weights()` has the result.
        previous: An earlier job (or its id), its masks, or the path of a masks file: reports count what changed.
        spectrum: Whether to measure singular values of the masked weights, which takes a decomposition of each.
        axis: Dimension that plain N:M groups run along: `in` or `out`.
        ragged: Edges that no whole tile covers: `pad`, `dense` or `error`.
        view: How convolutions become matrices: `channels-last`, or `flat`, which sends them as `[out, in * kh * kw]`;
            the masks file has that shape too.
        layout: How weights are made of matrices, by name, where modules, names and shapes do not tell: a word for each
            dimension, such as `"in out"` for a transposed weight or `"stack out in"` for stacked experts.
        layers: Names or globs of the weights to mask. Without it: every floating one with two to four dimensions.
        exclude: Names or globs to leave out.
        time_limit_s: Longest time for solving; what is found until then is kept, with its gap.
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
    time_limit_s: float | None


@dataclass(frozen=True)
class Submission:
    """Weights chosen and options checked; `key` makes all attempts to submit it the same job."""

    weights: list[Weight]
    skipped: list[Skipped]
    specification: JobSpecification
    beside: Chosen = field(default_factory=Chosen)
    previous: Path | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def uploads(self) -> list[Weight]:
        """All that travels: the weights, what their scores are made from, what updates need, and earlier masks."""
        statistics = (statistic.tensor for statistic in self.beside.statistics.values())
        earlier = [] if self.previous is None else [masks_upload(self.previous)]
        return [*self.weights, *statistics, *self.beside.grams.values(), *earlier]

    @property
    def total_bytes(self) -> int:
        """Bytes to send if the service has none of it."""
        return sum(tensor.file_bytes for tensor in self.uploads)

    @property
    def restore(self) -> dict[str, Restore]:
        """How each mask becomes what its weight was."""
        return {weight.name: weight.restore for weight in self.weights}

    def request(self, digests: Sequence[str]) -> MasksRequest:
        """Give the job document for `uploads` sent under these digests."""
        statistics, grams = self.beside.statistics, self.beside.grams
        of_statistics = dict(zip(statistics, digests[len(self.weights) :], strict=False))
        of_grams = dict(zip(grams, digests[len(self.weights) + len(statistics) :], strict=False))
        kinds = {name: statistic.kind for name, statistic in statistics.items()}
        inputs = [
            TensorInput(
                name=weight.name,
                digest=digest,
                key=KEY,
                statistic=_statistic(weight.name, kinds, of_statistics),
                gram=_statistic(weight.name, dict.fromkeys(grams, "gram"), of_grams),
                layout=_layout_input(weight),
            )
            for weight, digest in zip(self.weights, digests, strict=False)
        ]
        asked = self.specification.options.model_dump() | ({} if self.previous is None else {"previous": digests[-1]})
        return MasksRequest(tensors=inputs, **asked)


def _layout_input(weight: Weight) -> LayoutInput | None:
    """Give what the service is told of a weight's layout: nothing where it would come to the same."""
    layout = weight.layout
    is_plain = layout is None or (layout.axes == default_axes(weight.shape) and not layout.out_parts)
    if layout is None or (is_plain and layout.rule in ("shape", "model")):
        return None
    return LayoutInput.of(layout)


def _statistic(name: str, kinds: Mapping[str, str], digests: Mapping[str, str]) -> StatisticInput | None:
    if name not in digests:
        return None
    return StatisticInput.model_validate({"kind": kinds[name], "digest": digests[name], "key": KEY})


def prepare(
    weights: object,
    pattern: str | Pattern,
    *,
    layers: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    layout: Mapping[str, Layout | str] | None = None,
    calibration: object = None,
    previous: object = None,
    view: Literal["channels-last", "flat"] = "channels-last",
    local: bool = False,
    **options: Any,
) -> Submission:
    """Read, choose and check.

    Args:
        weights: A mapping of names to torch tensors or numpy arrays, a torch module, or a path: a `.safetensors`
            file, a sharded checkpoint's index, or the directory of either.
        pattern: Such as `"transposable 8:16"`, or a pattern object.
        layers: See `SubmitOptions`, as for all others.
        exclude: See `SubmitOptions`.
        layout: See `SubmitOptions`.
        calibration: See `SubmitOptions`.
        previous: See `SubmitOptions`.
        view: See `SubmitOptions`.
        local: Whether it is for this process, which sets no limits on sizes.
        options: See `SubmitOptions`.

    Raises:
        InputError: If anything cannot be used.
    """
    job, file = previous_of(previous)
    specification = specify(pattern, previous=job, **options)
    model = _viewed(read_weights(weights), view, specification)
    scores, update = specification.scores, specification.update
    calibrated = Calibration(calibration, scores, {weight.name for weight in model}, update)
    bound = None if local else specification.binding
    candidates = candidates_of(model, layout)
    selection = select(candidates, specification.fitting_pattern, layers, exclude, bound=bound, in_parts=not local)
    selected = set(selection.chosen)
    masked = [
        replace(weight, layout=candidate.layout)
        for weight, candidate in zip(model, candidates, strict=True)
        if weight.name in selected
    ]
    for weight in masked:
        if len(weight.name) > MAX_NAME_LENGTH:
            raise InputError(f"the name {weight.name[:60]!r}... is longer than {MAX_NAME_LENGTH} characters")
    beside, uncalibrated = calibrated.choose(masked, selection.named)
    chosen = [weight for weight in masked if weight.name not in uncalibrated]
    reasons = selection.skipped | uncalibrated
    skipped = [Skipped(name=weight.name, reason=reasons[weight.name]) for weight in model if weight.name in reasons]
    _refuse_layouts(chosen, specification)
    if specification.budget is not None:
        with as_input_errors(PatternError):
            specification.budget.check({weight.name: weight.shape for weight in chosen}, specification.pattern)
    if update is not None and scores.name == "given" and not beside.statistics:
        raise InputError("the tensors are scores, and an update wants weights: pass the scores as the calibration")
    return Submission(chosen, skipped, specification, beside, file)


def _refuse_layouts(weights: list[Weight], specification: JobSpecification) -> None:
    """Refuse budgets of what is not a single matrix, stored row by row."""
    for weight in weights if specification.budget is not None else ():
        layout = weight.layout
        if layout is not None and not layout.is_plain(specification.fitting_pattern, weight.shape):
            raise InputError(f"{weight.name!r}: a budget does not go with its layout {str(layout)!r}; exclude it")


def _viewed(model: list[Weight], view: str, specification: JobSpecification) -> list[Weight]:
    if view == "channels-last":
        return model
    if view != "flat":
        raise InputError(f"view={view!r} is not one of: channels-last, flat")
    if specification.scores.name not in ("magnitude", "given") or specification.update is not None:
        raise InputError("calibrations of convolutions are channel last: view='flat' takes magnitude or given scores")
    return [flattened(weight) for weight in model]


def specify(pattern: str | Pattern, **options: Any) -> JobSpecification:
    """Parse and check a pattern and options as the service would.

    Raises:
        InputError: Naming the value at fault.
        TypeError: For an option that does not exist.
    """
    unknown = options.keys() - (MasksOptions.model_fields.keys() - {"calibration"}) - {"pattern"}
    if unknown:
        raise TypeError(f"unexpected option {sorted(unknown)[0]!r}")
    if not isinstance(pattern, str):
        options = {"axis": pattern.axis, "ragged": pattern.ragged} | options
    if isinstance(options.get("budget"), Budget):
        options |= options["budget"].texts()
    try:
        checked = MasksOptions(pattern=str(pattern), **options)
    except ValidationError as error:
        raise InputError(_first(error, options)) from None
    with as_input_errors(SpecificationError):
        return JobSpecification.parse(checked)


def parse_pattern(
    text: str, axis: Literal["in", "out"] = "in", ragged: Literal["pad", "dense", "error"] = "pad"
) -> Pattern:
    """Read a pattern.

    Raises:
        InputError: If it is none.
    """
    with as_input_errors(PatternError):
        return parse(text, axis=axis, ragged=ragged)


def read_weights(weights: object) -> list[Weight]:
    """Read any input that `prepare` takes.

    Raises:
        InputError: If it is none.
    """
    if isinstance(weights, (str, os.PathLike)):
        return read_path(Path(weights))
    if not isinstance(weights, Mapping) and callable(getattr(weights, "state_dict", None)):
        return with_module_layouts(weights, read_mapping(weights.state_dict()))  # type: ignore[attr-defined]
    if not isinstance(weights, Mapping):
        raise InputError(f"weights are a dict of tensors, a torch module or a path, got a {type(weights).__name__}")
    return read_mapping(weights)


def _first(error: ValidationError, options: Mapping[str, Any]) -> str:
    fault = error.errors()[0]
    name = str(fault["loc"][0])
    if name == "solver":
        return f"solver={options[name]!r} is none of {', '.join(get_args(SolverName))}"
    if fault["type"] == "value_error":
        return f"{name}: {fault['ctx']['error']}"
    return f"{name}={options.get(name)!r}: {fault['msg'].lower()}"
