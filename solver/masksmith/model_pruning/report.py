"""Reports of pruning block by block: of each weight, of each block, and of the whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .blocks import BlockList


@dataclass(frozen=True, eq=False)
class WeightReport:
    """A weight that was pruned.

    Attributes:
        name: Its name in the model.
        pattern: Its pattern.
        mask: Bool, of the weight's shape, True = kept.
        tokens: Number of tokens that each of its matrices got.
        masked_error: Squared error of its outputs on the calibration data with the original weights masked by the
            first mask: that of the scores, before `admm` changes it.
        error: Squared error with the mask and the weights of the update, before the block is tuned; without an update,
            `masked_error`.
        energy: Squared norm of the outputs themselves, with the original weights.
        proof: Proof of the mask, for the scores of its last solve: `status`, `objective`, `upper_bound`, `gap`,
            `retained`, `solver` and `solve_s`.
        without_data: Reasons, by name, of the matrices that got too few tokens, or only inputs that are 0: these are
            masked by their weights alone, and not updated.
        silent_inputs: Number of input features that were 0 in every token, summed over the matrices that got tokens.
        update_s: Seconds of the update; 0 without one.
    """

    name: str
    pattern: str
    mask: Any
    tokens: Sequence[int]
    masked_error: float
    error: float
    energy: float
    proof: Mapping[str, Any]
    without_data: Mapping[str, str] = field(default_factory=dict)
    silent_inputs: int = 0
    update_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the mask, as a dict for JSON."""
        values = {key: value for key, value in vars(self).items() if key != "mask"}
        proof, without_data = dict(self.proof), dict(self.without_data)
        return values | {"tokens": list(self.tokens), "proof": proof, "without_data": without_data}


@dataclass(frozen=True)
class Tuning:
    """Result of tuning a block; errors as in `BlockReport`.

    Attributes:
        steps: Steps of Adam that were requested; fewer may have run if `stopped` is not None.
        error_before: Error of the block's output before tuning.
        error_after: Error after tuning; at most `error_before`, since otherwise the weights are restored.
        seconds: Seconds of tuning.
        stopped: Why the block could not be tuned, or why the tuning stopped before its last step or measurement; then
            the weights are restored. None otherwise.
    """

    steps: int
    error_before: float
    error_after: float
    seconds: float
    stopped: str | None = None

    def as_dict(self) -> Mapping[str, Any]:
        """Return the result as a dict for JSON."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class BlockReport:
    """A block whose weights were pruned.

    Errors are means of `BlockStep.token_errors` over `measured_tokens` tokens: squared differences of a token's output
    from that of the dense model, relative to the squared norm of the dense model's output.

    Attributes:
        name: Its name in the model.
        weights: Its weights.
        error_before: Error while this block was dense and those before it pruned; 0 for the first block.
        error_after: Error after this block was pruned, and after its tuning, if any.
        seconds: Seconds that the block took.
        tuning: Result of tuning, also if it stopped; None if no tuning was requested, or the block has no weights.
        measured_tokens: Number of tokens on which errors are measured: those of all batches if tuning is requested, or
            if the statistics come from the dense model; otherwise those of the first batches that together have at
            least `MEASURED_TOKENS` tokens, or of all batches if all have fewer.
    """

    name: str
    weights: Sequence[WeightReport]
    error_before: float
    error_after: float
    seconds: float
    tuning: Tuning | None
    measured_tokens: int

    def as_dict(self) -> dict[str, Any]:
        """Return the report, without masks, as a dict for JSON."""
        tuning = None if self.tuning is None else self.tuning.as_dict()
        return vars(self) | {"weights": [weight.as_dict() for weight in self.weights], "tuning": tuning}


@dataclass(frozen=True, eq=False)
class PrunedModel:
    """The report of a model that was pruned in place.

    Attributes:
        block_list: The blocks that were pruned, and the share of the model's weights in them.
        blocks: Reports of these blocks, in the order in which the blocks run.
        skipped: Matrices that stay dense, by name, with reasons; those that the caller did not select are left out.
        shared_names: For a weight that the model has under several names: maps each other name to the name used here.
    """

    block_list: BlockList
    blocks: Sequence[BlockReport]
    skipped: Mapping[str, str]
    shared_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def masks(self) -> dict[str, Any]:
        """Masks by the names of the weights."""
        return {weight.name: weight.mask for block in self.blocks for weight in block.weights}

    @property
    def without_data(self) -> dict[str, str]:
        """Matrices that were masked without data, by name, with reasons."""
        weights = [weight for block in self.blocks for weight in block.weights]
        return {name: reason for weight in weights for name, reason in weight.without_data.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return everything but masks, as a dict for JSON."""
        blocks = [block.as_dict() for block in self.blocks]
        return {
            "block_list": str(self.block_list),
            "blocks": blocks,
            "skipped": dict(self.skipped),
            "shared_names": dict(self.shared_names),
        }

    def __str__(self) -> str:
        lines = [str(self.block_list)]
        for block in self.blocks:
            masked_error = math.fsum(weight.masked_error for weight in block.weights)
            error = math.fsum(weight.error for weight in block.weights)
            gain = f"{masked_error / error:.2f}" if error else "-"
            output_error = f"output error {block.error_before:.3%} -> {block.error_after:.3%}"
            lines.append(f"{block.name}: {len(block.weights)} weight(s), {output_error}, gain of updates {gain}")
        lines += [f"without data: {name}: {reason}" for name, reason in self.without_data.items()]
        lines += [f"not tuned: {block.name}: {block.tuning.stopped}" for block in self.blocks
                  if block.tuning is not None and block.tuning.stopped is not None]  # fmt: skip
        return "\n".join([*lines, *(f"dense: {name}: {reason}" for name, reason in self.skipped.items())])
