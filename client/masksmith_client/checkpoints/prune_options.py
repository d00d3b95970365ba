"""Options of `Client.prune`, and how to get `ChoiceOptions` from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from masksmith.patterns import Axis, PatternError, PatternsByTensor, Ragged, TensorPatterns
from masksmith.patterns.matching import listed
from masksmith_client._errors import as_input_errors
from masksmith_wire.priorities import PriorityName

from .choice import ChoiceOptions


class PruneOptions(TypedDict, total=False):
    """Options of `Client.prune`, besides model, output and pattern.

    Attributes:
        scores: See `SubmitOptions`; with `given`, the calibration has the scores.
        calibration: See `SubmitOptions`; every masked tensor needs statistics.
        update: See `SubmitOptions`; with an update, the output has the updated weights.
        layers: Names or globs of the tensors to mask; default every matrix of the model's blocks.
        exclude: Names or globs of tensors to leave out.
        axis: See `SubmitOptions`; for patterns that are given as text. Pattern objects have an axis of their own.
        ragged: See `SubmitOptions`; for patterns that are given as text, as `axis` is.
        layout: Axes, such as `"stack in out"`, by the name or a glob of tensors, if the model does not show these axes.
        trust_remote_code: Whether code that the checkpoint brings may run, to watch the model's forward pass.
        name: Name of the jobs of this call, shown in lists; default the file or directory, and the pattern.
        labels: See `SubmitOptions`.
        priority: See `SubmitOptions`; default `batch`.
        by_reference: Whether model, output and calibration are in roots of the service, so that the service itself
            reads and writes them. If model or output is `s3://...`, all three must be in roots, whatever this option
            says.
        previous: Masks to compare with: a previous job, or the reference of a masks file or of an output in a root;
            only if model and output are in roots. The record of the output counts the entries that changed.
    """

    scores: str
    calibration: object
    update: str | None
    layers: str | Sequence[str] | None
    exclude: str | Sequence[str] | None
    axis: Axis
    ragged: Ragged
    layout: Mapping[str, str] | None
    trust_remote_code: bool
    name: str | None
    labels: Mapping[str, str] | None
    priority: PriorityName
    by_reference: bool
    previous: object


def choice_options_of(pattern: PatternsByTensor, options: PruneOptions) -> ChoiceOptions:
    """Return the options that decide which tensors are masked, by which patterns, and with which layouts.

    Raises:
        InputError: If a pattern is malformed.
    """
    with as_input_errors(PatternError):
        patterns = TensorPatterns.of(pattern, options.get("axis", "in"), options.get("ragged", "pad"))
        layers, exclude = listed(options.get("layers"), "layers"), listed(options.get("exclude"), "exclude")
    return ChoiceOptions(
        patterns,
        layers,
        exclude,
        options.get("layout") or {},
        options.get("trust_remote_code", False),
    )
