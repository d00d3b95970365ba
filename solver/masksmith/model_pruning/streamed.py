"""Prunes a model whose blocks are loaded one at a time; activations between blocks are stored in files.

If a run is killed, the next run in the same folder continues after the last finished block, or, if not all calls were
recorded, after the last recorded batch.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from masksmith._errors import PruningError
from masksmith.layouts import plain_path
from masksmith.patterns.by_tensor import PatternsByTensor, TensorPatterns
from masksmith.patterns.matching import Globs

from .activations import Activations, ActivationsOnDisk
from .block_run import BlockRun
from .blocks import BlockList, find_blocks
from .capture import DEPENDENT_ARGUMENT, CapturedBatch, capture, capture_batch, prepared
from .captured import CapturedOnDisk
from .first_block import first_difference
from .options import Options
from .parts import Part
from .report import BlockReport
from .skipping import skipping
from .weights import BlockWeight, weights_of

CALLS = "calls"
"""Folder of the recorded calls."""
AFTER = "after-"
"""Prefix of the name of a block's folder of outputs; the rest is the position at which the model runs the block."""


class BlockSource(Protocol):
    """Loads the weights of a model, block by block, and stores the pruned ones."""

    def load_outside(self) -> None:
        """Load the weights outside the blocks; those of the output head may be left out."""

    def release_outside(self) -> None:
        """Free the weights outside the blocks."""

    def load(self, block: str) -> None:
        """Load the parameters of a block; this may replace the parameter objects."""

    def release(self, block: str) -> None:
        """Free the parameters of a block."""

    def finish(self, position: int, report: BlockReport) -> None:
        """Store the weights and masks of a pruned block, durably; `position` is its index in the order of execution."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        block: Name of the current block; None while calls are recorded.
        done: Number of entries of pruned weights; while calls are recorded, number of recorded batches.
        total: Number of entries of all weights to prune; while calls are recorded, number of batches.
    """

    block: str | None
    done: int
    total: int


def prune_streamed(
    model: torch.nn.Module,
    batches: Sequence[Any],
    source: BlockSource,
    folder: Path,
    pattern: PatternsByTensor,
    *,
    options: Options,
    finished: int = 0,
    blocks: str | None = None,
    layers: Globs = None,
    exclude: Globs = None,
    layouts: Mapping[str, str] | None = None,
    parts: Mapping[str, Part] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Prune a model one block at a time; its weights are on the meta device, except while they are loaded.

    While calls are recorded, the weights outside the blocks and those of the first block are in memory; afterwards, one
    block, the statistics of its weights, and the activations of one batch. The files in the folder have the recorded
    calls, and the activations of the dense and the pruned model before and after one block.

    Args:
        model: The model, with its buffers.
        batches: As for `prune`.
        source: Loads the model's weights, and stores the pruned ones.
        folder: Folder for calls and activations; the files of an earlier run with the same arguments are used.
        pattern: As for `prune`.
        options: As for `prune`.
        finished: Number of blocks that earlier runs finished, from the first one that the model runs.
        blocks: As for `prune`.
        layers: As for `prune`.
        exclude: As for `prune`.
        layouts: As for `prune`.
        parts: Weights that are parts of parameters, by name. Each part is pruned under its name, with separate
            statistics; the entries of these parameters that are in no part stay dense.
        on_progress: Called at the start of the recording and of each block, after each recorded batch, and after each
            pruned weight.

    Raises:
        PruningError: As for `prune`; or if an argument of a block cannot be stored in a file, or is computed from
            what other blocks return; or if the first block returns something that is not supported (see `skipping`).
        OSError: If a file cannot be written.
    """
    block_list = find_blocks(model, blocks)
    patterns = TensorPatterns.of(pattern)
    weights = weights_of(model, block_list, patterns, layers=layers, exclude=exclude, layouts=layouts, parts=parts)
    with prepared(model):
        captured = CapturedOnDisk(folder / CALLS, block_list)
        _record_calls(model, block_list, batches, source, captured, on_progress)
        run = _StreamedRun(model, block_list, weights.by_block, captured, source, folder, options, on_progress)
        run.prune_blocks(finished)


def _record_calls(
    model: torch.nn.Module,
    blocks: BlockList,
    batches: Sequence[Any],
    source: BlockSource,
    captured: CapturedOnDisk,
    on_progress: Callable[[Progress], None],
) -> None:
    """Record the calls of the batches that an earlier run did not record."""
    if not batches:
        raise PruningError("there is no batch to calibrate with")
    if captured.count == len(batches):
        return
    loaded_blocks: list[str] = []

    def load(number: int) -> None:
        name = blocks.name(number)
        loaded_blocks.append(name)
        source.load(name)

    source.load_outside()
    on_progress(Progress(None, captured.count, len(batches)))
    with skipping(blocks, load):
        for batch in capture(model, blocks, batches, start=captured.count, blocks_are_skipped=True):
            if not captured.count:
                _check_independence(model, blocks, batches[0], batch)
            captured.add(batch)
            on_progress(Progress(None, captured.count, len(batches)))
    source.release_outside()
    for name in loaded_blocks:
        source.release(name)


def _check_independence(model: torch.nn.Module, blocks: BlockList, batch: Any, captured: CapturedBatch) -> None:
    """Check that the calls do not depend on what the skipped blocks return: record the first batch with other values.

    Raises:
        PruningError: If an argument of a block differs between the two records; the message names the block.
    """
    with skipping(blocks, lambda number: None, with_numbers=True):
        other = capture_batch(model, blocks, batch, 0, blocks_are_skipped=True)
    number = first_difference(captured, other)
    if number is not None:
        raise PruningError(DEPENDENT_ARGUMENT, blocks.name(number))


class _StreamedRun:
    """Prunes the blocks that are not finished yet."""

    def __init__(
        self,
        model: torch.nn.Module,
        blocks: BlockList,
        weights: Sequence[Sequence[BlockWeight]],
        captured: CapturedOnDisk,
        source: BlockSource,
        folder: Path,
        options: Options,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._model, self._blocks, self._weights, self._captured = model, blocks, weights, captured
        self._source, self._folder, self._options, self._on_progress = source, folder, options, on_progress
        self._entries_by_block = [sum(weight.tensor.numel() for weight in block_weights) for block_weights in weights]
        self._entries_done, self._current_block = 0, ""

    def prune_blocks(self, finished_count: int) -> None:
        """Prune all blocks after the first `finished_count` ones."""
        order = self._captured.order
        self._entries_done = sum(self._entries_by_block[number] for number in order[:finished_count])
        # Only the outputs of the last finished block are needed; those of a later block may be incomplete.
        for folder in self._folder.glob(f"{AFTER}*"):
            if folder != self._outputs_folder(finished_count - 1):
                shutil.rmtree(folder)
        run = BlockRun(self._blocks, self._captured, self._options, self._activations, self._advance, finished_count)
        for position in range(finished_count, len(order)):
            number = order[position]
            name = self._blocks.name(number)
            self._current_block = name
            self._advance(0)
            self._source.load(name)
            report = run.prune_block(number, self._loaded_weights(number))
            self._source.finish(position, report)
            self._source.release(name)
            # Errors are ignored, because no folder of outputs precedes that of the first block.
            shutil.rmtree(self._outputs_folder(position - 1), ignore_errors=True)
            gc.collect()

    def _loaded_weights(self, number: int) -> list[BlockWeight]:
        """Return the weights of a block with the parameters that the model has now, after `BlockSource.load`."""
        named = self._model.named_parameters(remove_duplicate=False)
        parameters = {plain_path(self._model, name): parameter for name, parameter in named}
        return [replace(weight, parameter=parameters[weight.parameter_name]) for weight in self._weights[number]]

    def _activations(self, position: int, kind: str) -> Activations:
        return ActivationsOnDisk(self._outputs_folder(position) / kind)

    def _outputs_folder(self, position: int) -> Path:
        """Return the folder of the outputs of the block that the model runs at this position."""
        return self._folder / f"{AFTER}{position:05}"

    def _advance(self, entries: int) -> None:
        """Report progress after `entries` more entries of pruned weights."""
        self._entries_done += entries
        self._on_progress(Progress(self._current_block, self._entries_done, sum(self._entries_by_block)))
