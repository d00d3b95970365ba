"""A prepared job: the tensors to upload, and the document that describes the job."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from masksmith.layouts import Candidate, with_layouts
from masksmith.patterns import Pattern
from masksmith_wire.documents import LayoutInput, MasksRequest, Skipped, StatisticInput, TensorInput
from masksmith_wire.names import JobDescription
from masksmith_wire.specification import JobSpecification

from .expected_tensor import ExpectedTensor
from .previous_masks import masks_upload
from .statistics import AuxiliaryTensors
from .streamed_tensor import KEY, Restore, StreamedTensor


@dataclass(frozen=True)
class PreparedJob:
    """Selected weights and validated options of one job.

    Attributes:
        weights: The weights to mask.
        skipped: Weights that are not sent, with the reason.
        specification: Parsed options; their pattern is the default, or that of the first rule if there is no default.
        patterns: The pattern of each weight, by name; other tensors of the model may have patterns here, too.
        auxiliary: Statistics and Gram matrices of the weights.
        previous: Path of a masks file to upload and to compare with, or None; the id or the reference of other previous
            masks is in `specification`.
        description: Name, labels and priority; without a name, the service chooses one.
        notes: Notes on the weights' checkpoint, for the user.
        idempotency_key: Sent with every attempt to create the job, so that the service creates only one.
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
        """All tensors to upload, in this order: weights, statistics, Gram matrices, and the file of previous masks."""
        statistics = (statistic.tensor for statistic in self.auxiliary.statistics.values())
        previous = [] if self.previous is None else [masks_upload(self.previous)]
        return [*self.weights, *statistics, *self.auxiliary.grams.values(), *previous]

    @property
    def total_bytes(self) -> int:
        """Bytes of the files of all `uploads`, even if the service has some of them or several are equal."""
        return sum(tensor.file_bytes for tensor in self.uploads)

    @property
    def restore_functions(self) -> dict[str, Restore]:
        """By name of the weight, the function that converts its results to the weight's framework and device."""
        return {weight.name: weight.restore for weight in self.weights}

    @property
    def expected_tensors(self) -> dict[str, ExpectedTensor]:
        """What the results of each weight must have; the pattern is None if the job has a budget."""
        has_budget, options = self.specification.budget is not None, self.specification.options
        return {
            weight.name: ExpectedTensor(
                weight.shape,
                None if has_budget else str(self.patterns[weight.name]),
                weight.dtype,
                options.axis,
                options.ragged,
                None if weight.layout is None else str(weight.layout),
            )
            for weight in self.weights
        }

    def request(self, digests: Sequence[str]) -> MasksRequest:
        """Build the job document; `digests` are those of `uploads`, in the same order."""
        statistics, grams = self.auxiliary.statistics, self.auxiliary.grams
        first_statistic = len(self.weights)
        first_gram = first_statistic + len(statistics)
        # Each slice of `digests` also has the digests of the uploads that follow; `zip` stops before those.
        statistic_digests = dict(zip(statistics, digests[first_statistic:], strict=False))
        gram_digests = dict(zip(grams, digests[first_gram:], strict=False))
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
        """The patterns of the weights in one text, each once."""
        return ", ".join(dict.fromkeys(str(self.patterns[weight.name]) for weight in self.weights))

    def _own_pattern(self, name: str) -> str | None:
        """The text of a weight's pattern; None if it is the job's pattern."""
        text = str(self.patterns[name])
        return None if text == self.specification.options.pattern else text


def layouts_to_send(weights: Sequence[StreamedTensor]) -> dict[str, LayoutInput]:
    """Make the documents of known layouts, by name, but not of those that the service finds from names and shapes.

    The service sees only the weights of the job, so these alone are the candidates for the rules.
    """
    candidates = with_layouts([Candidate(weight.name, weight.shape, weight.dtype) for weight in weights])
    layouts_by_rules = {candidate.name: candidate.layout for candidate in candidates}
    return {
        weight.name: LayoutInput.of(weight.layout)
        for weight in weights
        if weight.layout is not None and weight.layout != layouts_by_rules[weight.name]
    }


def _statistic_input(name: str, kinds: Mapping[str, str], digests: Mapping[str, str]) -> StatisticInput | None:
    if name not in digests:
        return None
    return StatisticInput.model_validate({"kind": kinds[name], "digest": digests[name], "key": KEY})
