"""Prunes one block after the other, with the activations that the dense and the pruned model pass to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .activations import Activations
from .block_step import BlockStep
from .blocks import BlockList
from .captured import Captured
from .groups import groups_of
from .options import Options
from .report import BlockReport, WeightReport
from .solving import check_has_data, prune_weight
from .tuning import tune
from .watching import BlockWatcher
from .weights import BlockWeight

MEASURED_TOKENS = 4096
"""The errors of a block are measured on the first batches, as many as are needed for this number of tokens.

All batches are measured if they have fewer tokens together, or if the dense model runs on all of them anyway (see
`_count_measured`).
"""
NewActivations = Callable[[int, str], Activations]
"""Returns storage for the outputs of a block, by its position in the order, and by the model: `dense` or `pruned`."""


class BlockRun:
    """Prunes blocks in the order in which they run.

    Args:
        blocks: The blocks.
        captured: The recorded calls of the blocks.
        options: How weights are pruned.
        new_activations: Returns storage for the outputs of a block.
        on_weight: Called after each weight is pruned, with its number of entries.
        finished_count: Number of blocks that earlier runs finished; for the last of them, `new_activations` returns the
            stored outputs.
    """

    def __init__(
        self,
        blocks: BlockList,
        captured: Captured,
        options: Options,
        new_activations: NewActivations,
        on_weight: Callable[[int], None] = lambda entries: None,
        finished_count: int = 0,
    ) -> None:
        self._blocks, self._captured, self._options = blocks, captured, options
        self._new_activations, self._on_weight, self._position = new_activations, on_weight, finished_count
        self._measured_batches, self._measured_tokens = _count_measured(captured, options)
        self._dense = self._pruned = captured.inputs
        if finished_count:
            self._dense, self._pruned = (new_activations(finished_count - 1, kind) for kind in ("dense", "pruned"))

    def prune_block(self, number: int, weights: Sequence[BlockWeight]) -> BlockReport:
        """Prune the next block; its outputs are the inputs of the following one.

        Args:
            number: Index of this block in `blocks`, which need not be its position in the order.
            weights: The weights to prune.

        Raises:
            PruningError: If an activation is not finite, or a matrix gets too few tokens.
            MasksmithError: As scores, solver and update do.
        """
        started = time.perf_counter()
        step = BlockStep(self._blocks, number, self._captured, self._measured_batches)
        dense, pruned = (self._new_activations(self._position, kind) for kind in ("dense", "pruned"))
        groups = self._groups(step, weights)
        watcher = step.watcher(groups[0])
        # At the first block, the inputs in both models are the same, so the run in the dense model serves for both.
        statistics_from_dense = self._options.inputs_from == "dense" or self._dense is self._pruned
        if statistics_from_dense:
            step.run(self._dense, into=dense, watcher=watcher)
        else:
            step.run(self._dense, into=dense, only_measured=True)
        error_before = 0.0
        if self._dense is not self._pruned:
            error_before = step.run(self._pruned, target=dense, watcher=None if statistics_from_dense else watcher)
        by_name = self._prune_groups(step, groups, watcher, self._dense if statistics_from_dense else self._pruned)
        reports = [by_name[weight.name] for weight in weights]
        tuning = tune(step, weights, reports, self._pruned, dense, self._options)
        error_after = step.run(self._pruned, into=pruned, target=dense)
        self._dense, self._pruned, self._position = dense, pruned, self._position + 1
        self._captured.forget(number)
        return BlockReport(
            step.name, reports, error_before, error_after, time.perf_counter() - started, tuning, self._measured_tokens
        )

    def _groups(self, step: BlockStep, weights: Sequence[BlockWeight]) -> list[list[BlockWeight]]:
        if self._options.order == "together" or not weights:
            return [list(weights)]
        return groups_of(step, self._pruned, weights)

    def _prune_groups(
        self, step: BlockStep, groups: Sequence[Sequence[BlockWeight]], watcher: BlockWatcher, inputs: Activations
    ) -> dict[str, WeightReport]:
        """Prune the groups one after the other; `watcher` has the first group's statistics already, from `inputs`."""
        reports: dict[str, WeightReport] = {}
        for position, group in enumerate(groups):
            if position:
                watcher = step.watcher(group)
                step.run(inputs, watcher=watcher)
            for statistics in watcher.statistics.values():
                check_has_data(statistics, self._options)
            for name in list(watcher.statistics):
                statistics = watcher.statistics.pop(name)
                reports[name] = prune_weight(statistics, self._options)
                self._on_weight(statistics.weight.tensor.numel())
                del statistics
        return reports


def _count_measured(captured: Captured, options: Options) -> tuple[int, int]:
    """Return on how many batches, from the first one, and on how many tokens the errors of blocks are measured.

    All batches are measured if the dense model's outputs of all of them are needed anyway: for tuning, or for
    statistics of the weights' inputs in the dense model.
    """
    needs_all = options.tune_steps_or_default > 0 or options.inputs_from == "dense"
    batches = tokens = 0
    while batches < len(captured.token_masks) and (needs_all or tokens < MEASURED_TOKENS):
        token_mask = captured.token_masks[batches]
        if token_mask is None:
            tokens += captured.inputs.read(batches)[0][..., 0].numel()
        else:
            tokens += int(token_mask.sum())
        batches += 1
    return batches, tokens
