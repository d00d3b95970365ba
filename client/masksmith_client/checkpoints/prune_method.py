"""How a checkpoint is pruned: the scores of its masks, the update of its weights, and the statistics for both."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from masksmith_client._errors import InputError
from masksmith_client.submission.statistics import AuxiliaryTensors, CalibrationReader
from masksmith_client.submission.streamed_tensor import StreamedTensor
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.scores import ScoreMethod
from masksmith_wire.updates import UpdateMethod

from .block_options import BlockOptions
from .calibration_text import CalibrationText
from .checkpoint import Checkpoint
from .choice import Choice, ChosenTensor
from .tensors import Tensor

BLOCK_SCORES = ("wanda", "ria", "sparsegpt", "magnitude")
"""Scores that go with a calibration text: those of `masksmith.prune`, the function that prunes block by block."""


@dataclass(frozen=True, slots=True)
class PruneMethod:
    """How masks and weights of a checkpoint are computed.

    Attributes:
        scores: Scores of the weights; masks keep the largest sum of them.
        update: How the kept weights are updated; None leaves them as they are.
        calibration: Statistics for scores and update; see `SubmitOptions`.
        text: Text that a language model is calibrated with, block by block; not allowed with `calibration`.
        blocks: How blocks are pruned with `text`; with a text, `parse` replaces a `tune_steps` of None by its default.
    """

    scores: ScoreMethod
    update: UpdateMethod | None = None
    calibration: object = None
    text: CalibrationText | None = None
    blocks: BlockOptions = field(default_factory=BlockOptions)

    @classmethod
    def parse(
        cls,
        scores: str,
        update: str | None = None,
        calibration: object = None,
        text: CalibrationText | None = None,
        blocks: BlockOptions | None = None,
    ) -> PruneMethod:
        """Parse scores and update, and check that the arguments go together.

        Raises:
            InputError: If scores or update are malformed or out of their ranges, or if an argument excludes another
                one or needs one that is missing.
        """
        try:
            method = cls(
                ScoreMethod.parse(scores),
                None if update is None else UpdateMethod.parse(update),
                calibration,
                text,
                blocks or BlockOptions(),
            )
        except ValueError as error:
            raise InputError(str(error)) from None
        for option in (method.scores, method.update):
            if option is not None and option.out_of_range_reason is not None:
                raise InputError(f"{str(option)!r}: {option.out_of_range_reason}")
        if method.scores.name == "given" and calibration is None:
            raise InputError("given scores need a calibration: a file with the scores, under the tensors' names")
        if text is not None and method.scores.name not in BLOCK_SCORES:
            raise InputError(f"scores {scores!r} do not go with a calibration text; use {', '.join(BLOCK_SCORES)}")
        if text is not None and calibration is not None:
            raise InputError("a calibration and a calibration text exclude each other: the text makes the statistics")
        if text is None and method.blocks != BlockOptions():
            raise InputError(f"{', '.join(method.blocks.changed_flags())} need(s) --calibration-text")
        if method.blocks.tune_steps and update is None:
            raise InputError("--tune-steps needs --update: without one, the kept weights stay as they are")
        if not 0 < method.blocks.tune_rate < float("inf"):
            raise InputError(f"--tune-rate {method.blocks.tune_rate} must be positive and finite")
        return replace(method, blocks=method.blocks.with_steps(is_updated=update is not None)) if text else method

    def statistics(self, checkpoint: Checkpoint, choice: Choice) -> AuxiliaryTensors:
        """Look up the statistics of each masked tensor, under its own name or that of a tensor that is tied to it.

        With a calibration text the result is empty: the statistics are gathered block by block. It is also empty if
        neither the scores nor the update need statistics.

        Raises:
            InputError: If a calibration is needed and missing, is passed and not needed, or cannot be read; or if a
                tensor lacks statistics, has some that do not fit it or are not finite, or cannot be updated; or if
                tied tensors have different statistics.
        """
        if self.text is not None:
            return AuxiliaryTensors()
        tied_names = {tensor.name: tensor.tied for tensor in choice.tensors.values()}
        names = {*checkpoint.tensors, *checkpoint.absent_ties, *chain.from_iterable(tied_names.values())}
        reader = CalibrationReader(self.calibration, self.scores, names, self.update, tied_names)
        weights = [weight_of(tensor, checkpoint.tensors[tensor.name]) for tensor in choice.masked_tensors]
        statistics, reasons_by_name = reader.find(weights)
        if reasons_by_name:
            name, reason = next(iter(reasons_by_name.items()))
            count = len(reasons_by_name) - 1
            others = f", and {count} other tensor(s) are not calibrated" if count else ""
            raise InputError(f"{name!r} is {reason}{others}; calibrate what is masked, or leave it out with exclude=")
        _check_values(statistics)
        return statistics


def weight_of(chosen: ChosenTensor, source: Tensor) -> StreamedTensor:
    """Return a tensor of a checkpoint with its chosen layout, in the form in which weights are submitted."""
    return StreamedTensor(chosen.name, source.dtype, source.shape, source.pieces, layout=chosen.layout)


def _check_values(statistics: AuxiliaryTensors) -> None:
    """Refuse statistics that are not finite, before anything is solved."""
    for tensor in statistics.tensors:
        values = to_numpy(b"".join(tensor.read()), tensor.dtype, tensor.shape)
        is_finite = np.isfinite(values)
        if not is_finite.all():
            index = np.unravel_index(int(np.argmin(is_finite)), values.shape)
            raise InputError(f"{tensor.name!r} is {values[index]} at {[int(place) for place in index]}")
