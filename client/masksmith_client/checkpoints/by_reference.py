"""Prunes a model by reference: service and workers read it in a root, and write the copy to a root.

A root is a directory or a bucket that the service's configuration lets jobs read or write.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masksmith import layouts
from masksmith.layouts import Candidate, Layout, LayoutError, SelectionError
from masksmith.patterns import Pattern, PatternError, PatternsByTensor
from masksmith_client._errors import ClientError, InputError, as_input_errors
from masksmith_client._jobs import Job, Jobs
from masksmith_client._progress import ShowProgress
from masksmith_client.submission.description import describe
from masksmith_client.submission.options import options_of_patterns, specify
from masksmith_client.submission.previous_masks import previous_reference
from masksmith_wire.documents import LayoutInput, MasksOptions, MasksRequest, OutputInput, StatisticInput, TensorInput
from masksmith_wire.locations import is_in_bucket
from masksmith_wire.names import default_name
from masksmith_wire.priorities import PriorityName
from masksmith_wire.references import ListedTensor, ModelListing
from masksmith_wire.scores import statistic_key
from masksmith_wire.specification import JobSpecification

from .checkpoint import Checkpoint
from .choice import ChoiceOptions, ChosenTensor, choose, user_layouts
from .files import find_weights
from .prune_method import PruneMethod
from .prune_options import PruneOptions, choice_options_of


@dataclass(frozen=True)
class ReferencePruner:
    """Prunes models by reference.

    Attributes:
        jobs: The service's jobs.
        method: Scores, update and calibration; the calibration must be a reference, too.
        progress: Whether to show progress; see `ShowProgress`.
        name, labels, priority: Description of the job; see `SubmitOptions`.
        on_submit: Called with the submitted job.
        previous: What the masks are compared with: a previous job, or a reference of masks or of an output; or None.
    """

    jobs: Jobs
    method: PruneMethod
    progress: ShowProgress = None
    name: str | None = None
    labels: Mapping[str, str] | None = None
    priority: PriorityName = "batch"
    on_submit: Callable[[Job], None] = field(default=lambda _: None)
    previous: object = None

    def prune(self, model: str, output: str, options: ChoiceOptions) -> dict[str, Any]:
        """Submit a job that writes a pruned copy of a model, and wait until it is written; Ctrl-C cancels the job.

        Args:
            model: Reference of a safetensors file, an index or a model's directory; or a relative path.
            output: Reference of a new or empty directory, or of one that the same call began; or a relative path.
            options: Patterns, and which tensors are masked.

        Returns:
            The record of the output, `masksmith.json`.

        Raises:
            InputError: If an argument is invalid.
            StatusError: If the service refuses the model or the job.
            JobFailedError: If a tensor has no mask, a file was not written or the job was canceled; the output stays
                marked as unfinished.
        """
        model, output = location_of(model), location_of(output)
        listing = self.jobs.list_reference(model)
        layouts_and_patterns = chosen_tensors(listing, options)
        request = self._request(model, output, options, listing, layouts_and_patterns)
        job = self.jobs.submit_request(request)
        self.on_submit(job)
        try:
            job.wait(progress=self.progress)
        except KeyboardInterrupt:
            with suppress(ClientError):  # The job may have ended, or the service may be unreachable.
                job.cancel()
            raise
        return job.output()

    def _request(
        self,
        model: str,
        output: str,
        options: ChoiceOptions,
        listing: ModelListing,
        layouts_and_patterns: Mapping[str, tuple[LayoutInput | None, Pattern]],
    ) -> MasksRequest:
        assert options.patterns is not None
        # The job has a single `axis` and a single `ragged`: those of the patterns for which they mean something, which
        # need not be the first pattern.
        all_patterns = {"": options.patterns.first, **options.patterns.rules}
        update = None if self.method.update is None else str(self.method.update)
        specification = specify(
            options.patterns.first,
            **options_of_patterns(all_patterns),
            scores=str(self.method.scores),
            update=update,
            previous=previous_reference(self.previous),
        )
        _check_patterns({name: pattern for name, (_, pattern) in layouts_and_patterns.items()}, specification)
        statistics, grams = self._statistics(list(layouts_and_patterns))
        files = {tensor.name: tensor.file for tensor in listing.tensors}
        tensors = [
            TensorInput(
                name=name,
                key=name,
                reference=files[name],
                layout=layout,
                pattern=None if options.patterns.is_single else str(pattern),
                statistic=statistics.get(name),
                gram=grams.get(name),
            )
            for name, (layout, pattern) in layouts_and_patterns.items()
        ]
        job_name = self.name or default_name(listing.location.rpartition("/")[2], str(options.patterns))
        description = describe(job_name, self.labels, self.priority)
        job_options = {name: getattr(specification.options, name) for name in MasksOptions.model_fields}
        return MasksRequest(
            **job_options,
            name=description.name,
            labels=description.labels,
            priority=description.priority,
            tensors=tensors,
            output=OutputInput(location=output, model=model),
        )

    def _statistics(self, names: list[str]) -> tuple[dict[str, StatisticInput], dict[str, StatisticInput]]:
        """Look up references to the statistics of tensors in the calibration.

        Returns:
            The statistics for the scores, and the Gram matrices for the update, by the tensors' names; each is empty if
            the method does not need it.

        Raises:
            InputError: If a calibration is needed and missing, is passed and not needed, is not a reference, or lacks a
                statistic of a tensor.
        """
        kinds, needs_gram = self.method.scores.kinds, self.method.update is not None
        if self.method.calibration is None:
            if self.method.scores.needs_statistic or needs_gram:
                option = self.method.scores if self.method.scores.needs_statistic else self.method.update
                raise InputError(f"{option} needs a calibration: the reference of a file in a root")
            return {}, {}
        if not kinds and not needs_gram:
            raise InputError(f"scores {str(self.method.scores)!r} use the weights alone: leave the calibration out")
        if not isinstance(self.method.calibration, str | Path):
            raise InputError("by reference, a calibration is the reference of a file in a root")
        listing = self.jobs.list_reference(location_of(str(self.method.calibration)))
        files = {tensor.name: tensor.file for tensor in listing.tensors}
        statistics, grams = dict[str, StatisticInput](), dict[str, StatisticInput]()
        for name in names:
            if kinds:
                statistics[name] = _statistic(name, kinds, files)
            if needs_gram:
                grams[name] = _statistic(name, ("gram",), files)
        return statistics, grams


def prune_by_reference(
    jobs: Jobs, model: str, output: str, pattern: PatternsByTensor, progress: ShowProgress, options: PruneOptions
) -> dict[str, Any]:
    """Prune a model by a job whose workers read the model and write the copy; see `Client.prune`."""
    method = PruneMethod.parse(options.get("scores", "magnitude"), options.get("update"), options.get("calibration"))
    pruner = ReferencePruner(
        jobs,
        method,
        progress,
        name=options.get("name"),
        labels=options.get("labels"),
        priority=options.get("priority", "batch"),
        previous=options.get("previous"),
    )
    return pruner.prune(model, output, choice_options_of(pattern, options))


def is_by_reference(model: object, output: object, options: PruneOptions) -> bool:
    """Whether to prune by reference: because of the option, or because model or output is in a bucket."""
    return options.get("by_reference", False) or is_in_bucket(str(model)) or is_in_bucket(str(output))


def location_of(path: str) -> str:
    """Return the reference of a path or URL: an `s3://` URL unchanged, a path as an absolute path."""
    return path if is_in_bucket(path) else os.path.abspath(path)


def chosen_tensors(listing: ModelListing, options: ChoiceOptions) -> dict[str, tuple[LayoutInput | None, Pattern]]:
    """Choose the tensors to mask, from the model's files if this process has them, else from the listing.

    Returns:
        The layout and the pattern of each tensor, by name; the layout is None where the service decides it.

    Raises:
        InputError: If the options do not fit the tensors, nothing can be masked, or the files are not a readable model.
    """
    local_choice = None if is_in_bucket(listing.location) else _local_choice(Path(listing.location), listing, options)
    if local_choice is None:
        return _choice_by_listing(listing, options)
    return {
        tensor.name: (_layout_input(tensor.layout), tensor.pattern)
        for tensor in local_choice
        if tensor.pattern is not None  # For the type checker: every masked tensor has a pattern.
    }


def _layout_input(layout: Layout | None) -> LayoutInput | None:
    return None if layout is None else LayoutInput.of(layout)


def _local_choice(path: Path, listing: ModelListing, options: ChoiceOptions) -> list[ChosenTensor] | None:
    """Choose tensors as `prune_model` does; None if no readable model with the listed tensors is here."""
    try:
        weights = find_weights(path)
    except InputError:
        return None
    if not os.access(weights, os.R_OK):
        return None
    checkpoint = Checkpoint.open(path)
    checkpoint.check_is_readable()
    local_tensors = {name: (tensor.dtype, list(tensor.shape)) for name, tensor in checkpoint.tensors.items()}
    if local_tensors != {tensor.name: (tensor.dtype, tensor.shape) for tensor in listing.tensors}:
        return None
    return choose(checkpoint, options).masked_tensors


def _choice_by_listing(listing: ModelListing, options: ChoiceOptions) -> dict[str, tuple[LayoutInput | None, Pattern]]:
    assert options.patterns is not None
    names = [tensor.name for tensor in listing.tensors]
    with as_input_errors(LayoutError, PatternError, SelectionError):
        layouts_of_user = user_layouts(options.layouts, names)
        candidates = layouts.with_layouts(
            [_candidate(tensor) for tensor in listing.tensors], layouts_of_user, listing.config
        )
        patterns = options.patterns.assign(names)
        selection = layouts.select(candidates, patterns, list(options.layers), list(options.exclude), in_parts=True)
        layouts.check_rules_apply(options.patterns, candidates, selection.skipped)
    layouts_by_name = {candidate.name: candidate.layout for candidate in candidates}
    return {name: (_layout_input(layouts_by_name[name]), patterns[name]) for name in selection.chosen}


def _candidate(tensor: ListedTensor) -> Candidate:
    return Candidate(tensor.name, tuple(tensor.shape), tensor.dtype, file_format=tensor.format)


def _check_patterns(patterns: Mapping[str, Pattern], specification: JobSpecification) -> None:
    """Refuse patterns whose `axis` or `ragged` is not the job's.

    Raises:
        InputError: If there is such a pattern; the message names it.
    """
    for pattern in dict.fromkeys(patterns.values()):
        if specification.with_own_pattern(str(pattern)).pattern != pattern:
            raise InputError(f"{str(pattern)!r}: all patterns of a job must have the same axis and ragged")


def _statistic(name: str, kinds: tuple[str, ...], files: Mapping[str, str]) -> StatisticInput:
    """Return the reference of the first of these kinds of statistic that the calibration has for a tensor.

    Args:
        name: The tensor's name.
        kinds: Kinds of statistic, the preferred one first.
        files: References of the calibration's files, by the keys of the statistics in them.

    Raises:
        InputError: If the calibration has none of them.
    """
    for kind in kinds:
        key = statistic_key(name, kind)
        if key in files:
            return StatisticInput.model_validate({"kind": kind, "reference": files[key], "key": key})
    raise InputError(
        f"{name!r} is not calibrated: the calibration has no {statistic_key(name, kinds[-1])!r}; leave it out with "
        f"exclude="
    )
