"""Prunes the unfinished blocks of a checkpoint: loads them, saves the results, shows the progress."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masksmith_client._progress import Bar
from masksmith_client.checkpoints.choice import Choice
from masksmith_client.checkpoints.prune_method import PruneMethod

from .finished_blocks import FinishedBlocks
from .report_files import write_report
from .skeleton import Skeleton

if TYPE_CHECKING:
    from masksmith.model_pruning import Part


class BlockPruning:
    """Prunes the unfinished blocks of a checkpoint: a `BlockSource`, which `prune_streamed` calls for each block.

    Args:
        skeleton: The model.
        blocks: The blocks of the model.
        choice: Which tensors are pruned, and how.
        method: Scores, update, and options of pruning block by block.
        parts: For each stored tensor that becomes part of a parameter: which part, by the tensor's name.
        folder: Folder in the output, for finished blocks and activations.
        threads: Threads of solvers and updates.

    Attributes:
        finished_blocks: The finished blocks, those of earlier runs included.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        blocks: Any,
        choice: Choice,
        method: PruneMethod,
        parts: Mapping[str, Part],
        folder: Path,
        threads: int | None,
    ) -> None:
        self._skeleton, self._blocks, self._choice, self._method = skeleton, blocks, choice, method
        self._parts, self._folder, self._threads = parts, folder, threads
        self.finished_blocks = FinishedBlocks(folder, choice, method, parts)
        self._progress = _ProgressBar()

    @property
    def has_progress(self) -> bool:
        """Whether at least one block is finished, so that a later run can continue after it."""
        return bool(self.finished_blocks.reports)

    @property
    def is_finished(self) -> bool:
        """Whether all blocks are finished."""
        return len(self.finished_blocks.reports) == len(self._blocks.modules)

    def run(self, batches: list[dict[str, Any]]) -> None:
        """Prune the unfinished blocks, then remove the activations.

        Args:
            batches: The calibration batches, each of which is the model's arguments by name.

        Raises:
            PruningError: As `prune_streamed` does, or if the file of a finished block was changed.
            InputError: As `load_outside` and `load` do.
            OSError: If a file cannot be written.
        """
        activations = self._folder / "activations"
        self.finished_blocks.check()
        if not self.is_finished:
            self._prune(batches, activations)
        shutil.rmtree(activations, ignore_errors=True)

    def _prune(self, batches: list[dict[str, Any]], activations: Path) -> None:
        from masksmith.model_pruning import prune_streamed

        layouts = {tensor.name: str(tensor.layout) for tensor in self._choice.masked_tensors}
        patterns = {tensor.name: tensor.pattern for tensor in self._choice.masked_tensors if tensor.pattern is not None}
        with self._progress:
            prune_streamed(
                self._skeleton.model,
                batches,
                self,
                activations,
                patterns,
                options=self._options(),
                finished=len(self.finished_blocks.reports),
                layers=list(layouts),
                layouts=layouts,
                parts=self._parts,
                on_progress=self._progress.show,
            )

    def load_outside(self) -> None:
        """Load the parameters and stored buffers outside the blocks, except those of the output head.

        Raises:
            InputError: As `Skeleton.load_outside` does.
        """
        self._skeleton.load_outside(self._blocks.path)

    def release_outside(self) -> None:
        """Free the parameters that `load_outside` loads."""
        self._skeleton.release_outside(self._blocks.path)

    def load(self, block: str) -> None:
        """Load a block.

        Raises:
            InputError: As `Skeleton.load` does, or if a part of a parameter differs from the stored tensor.
        """
        self._skeleton.load(block)
        self._skeleton.check_parts(
            {name: part for name, part in self._parts.items() if part.parameter.startswith(f"{block}.")}
        )

    def release(self, block: str) -> None:
        """Free a block."""
        self._skeleton.release(block)

    def finish(self, position: int, report: Any) -> None:
        """Save a pruned block, and write the report of all finished blocks.

        Args:
            position: Position of the block in the order in which the model runs the blocks.
            report: Report of the block.
        """
        self.finished_blocks.write(position, report, self._skeleton.model)
        write_report(
            self._folder.parent,
            str(self._blocks),
            len(self._blocks.modules),
            self._method,
            self.finished_blocks.reports,
        )

    def _options(self) -> Any:
        from masksmith.model_pruning import Options

        scores, update, blocks = self._method.scores, self._method.update, self._method.blocks
        return Options(
            scores.name,
            None if update is None else update.name,
            scores.options,
            {} if update is None else update.options,
            min_tokens=blocks.min_tokens,
            few_tokens=blocks.few_tokens,
            threads=self._threads,
            order=blocks.order,
            tune_steps=blocks.tune_steps,
            tune_rate=blocks.tune_rate,
        )


class _ProgressBar:
    """Shows two bars in turn: of the steps of capturing, one for each batch; then of the entries of pruned weights.

    The second bar calls an entry a weight, as users do.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._shows_capture = True

    def show(self, progress: Any) -> None:
        """Show the progress of the run."""
        is_capture = progress.block is None
        if self._bar is None or is_capture != self._shows_capture:
            self._close()
            label, unit = ("capturing", "step") if is_capture else ("pruning", "weight")
            self._bar = Bar(label, progress.total, show="lines", unit=unit, start=progress.done)
            self._bar.__enter__()
            self._shows_capture = is_capture
        if not is_capture:
            self._bar.rename(f"pruning {progress.block}")
        self._bar.move_to(progress.done, progress.total)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def __enter__(self) -> None:
        """Do nothing: `show` creates the bars."""

    def __exit__(self, *exception: object) -> None:
        self._close()
