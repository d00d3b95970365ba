"""Options of a masks job; parses and validates patterns and options by the service's own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args

from pydantic import ValidationError

from masksmith.layouts import Layout
from masksmith.patterns import Budget, Channels, Pattern, PatternError, PatternsByTensor, parse
from masksmith_client._errors import InputError, as_input_errors
from masksmith_wire.documents import MasksOptions, SolverName
from masksmith_wire.priorities import PriorityName
from masksmith_wire.specification import JobSpecification, SpecificationError


class SubmitOptions(TypedDict, total=False):
    """Options of a masks job, besides weights and pattern.

    Attributes:
        solver: `auto`, `exact`, `min-cost-flow`, `greedy`, `sinkhorn`, `enumerate` or `top-k`.
        scores: `magnitude` of the weights; `wanda`, `ria`, `sparsegpt`, `taylor`, `sipp` or `pfp`, which need a
            calibration; or `given`: the scores, which must not be negative, are in the calibration, or, without a
            calibration, are passed in place of the weights. A method can have options: `"ria power=0.7"`.
        calibration: The result of `masksmith.calibrate`, the path of a saved calibration, or a mapping of names to the
            statistics that the scores are computed from; with `given` scores, the scores.
        budget: Density of all weights together, such as `"50%"`, or a `Budget`. It is allocated to the
            weights so that the total score kept is maximal; with n:m patterns each weight gets an n of its own.
        floors: Minimum densities of the weights that match a glob: `["*.query*=25%"]`; added to those of a `Budget`.
        update: Method that updates the kept weights: `reconstruct` or `admm`, with options as in `"admm penalty=0.1"`.
            Needs a calibration with Gram matrices; `job.weights()` downloads the result.
        previous: Masks to compare with: a previous job or its id, downloaded masks, the path of a masks file, or the
            reference of a masks file or of an output in a root, such as `s3://pruned/llama`. Reports count the entries
            that changed.
        spectrum: Whether to measure the singular values of the masked weights, by a decomposition of each weight.
        axis: Dimension along which plain N:M groups run: `in` or `out`.
        ragged: Treatment of edges that no whole tile covers: `pad`, `dense` or `error`.
        view: How convolutions are viewed as matrices: `channels-last`, or `flat`, which sends them as
            `[out, in * kh * kw]`; the masks file then has that shape, too. Transposed convolutions have no flat view.
        layout: How a weight is made of matrices, by the weight's name; only needed if its module, name and shape do not
            show it. A layout has a word for each dimension, such as `"in out"` for a transposed weight or
            `"stack out in"` for stacked experts.
        layers: Names or globs of the weights to mask; default every matrix of the model's blocks.
        exclude: Names or globs of weights to leave out.
        trust_remote_code: Whether code that a checkpoint brings may run, to watch the model's forward pass.
        time_limit_s: Time limit of the whole job, in seconds from its start; after that, tiles get any allowed mask,
            and the gap bounds the loss.
        name: Name of the job, shown in lists; default the weights' file, directory or module class, and the pattern;
            for other weights the service chooses the name.
        labels: Labels that the job can be found by in lists, such as `{"team": "vision"}`.
        priority: Priority of the job among the jobs of the same key: `interactive`, `normal` or `batch`; the service
            lowers it to the highest that the key may use. Default `interactive` for up to 64 MiB of weights, else
            `normal`.
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


def specify(pattern: Pattern, **options: Any) -> JobSpecification:
    """Parse and validate a pattern and options by the service's own rules.

    Raises:
        InputError: If a value is invalid; the message names it.
        TypeError: If an option does not exist, or is `calibration`, which is no part of this specification.
    """
    unknown = options.keys() - (MasksOptions.model_fields.keys() - {"calibration"})
    if unknown:
        raise TypeError(f"unexpected option {sorted(unknown)[0]!r}")
    if isinstance(options.get("budget"), Budget):
        options |= _budget_texts(options["budget"], options.get("floors", ()))
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


def options_of_patterns(pattern: PatternsByTensor) -> dict[str, Any]:
    """Return `axis` and `ragged` of pattern objects; empty if all patterns are texts.

    With texts, the caller passes both as options of the job. Of each option, the first value among the objects that is
    not the default is returned. The axis of `Channels` is left out, since it is part of the pattern's text.
    """
    values = pattern.values() if isinstance(pattern, Mapping) else [pattern]
    patterns = [value for value in values if isinstance(value, Pattern)]
    if not patterns:
        return {}
    axis = next((each.axis for each in patterns if each.axis != "in" and not isinstance(each, Channels)), "in")
    return {"axis": axis, "ragged": next((each.ragged for each in patterns if each.ragged != "pad"), "pad")}


def _budget_texts(budget: Budget, more_floors: object) -> dict[str, Any]:
    """Return a budget as the options `budget` and `floors`; floors passed beside it are added to its own."""
    texts: dict[str, Any] = budget.texts()
    if not isinstance(more_floors, list | tuple):
        return texts | {"floors": more_floors}  # no list of floors: the options' validation refuses it
    return texts | {"floors": [*texts["floors"], *more_floors]}


def _first_error(error: ValidationError, options: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0])
    if name == "solver":
        return f"solver={options[name]!r} is not one of: {', '.join(get_args(SolverName))}"
    if first["type"] == "value_error":
        return f"{name}: {first['ctx']['error']}"
    return f"{name}={options.get(name)!r}: {first['msg'].lower()}"
