"""Prunes a model block by block, in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from tqdm import tqdm

from masksmith._errors import PruningError
from masksmith.patterns.by_tensor import PatternsByTensor, TensorPatterns
from masksmith.patterns.matching import Globs

from .blocks import BlockList, find_blocks
from .calls import Call, Tensors
from .capture import Captured, capture, prepared
from .options import FewTokens, InputsFrom, Options
from .report import BlockReport, PrunedModel
from .solving import check_token_count, prune_weight
from .watching import BlockWatcher
from .weights import BlockWeight, weights_of

Tensor = torch.Tensor


def prune(
    model: torch.nn.Module,
    batches: Iterable[Any],
    pattern: PatternsByTensor,
    *,
    scores: str = "wanda",
    update: str | None = "admm",
    score_options: Mapping[str, Any] | None = None,
    update_options: Mapping[str, Any] | None = None,
    inputs_from: InputsFrom = "pruned",
    min_tokens: int = 64,
    few_tokens: FewTokens = "refuse",
    blocks: str | None = None,
    layers: Globs = None,
    exclude: Globs = None,
    layouts: Mapping[str, str] | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> PrunedModel:
    """Prune a model in place, block by block, each on the outputs of the pruned blocks before it.

    The batches run once through the dense model, up to the last block. Then for each block: it runs, and the inputs of
    its weights are gathered; the weights are masked and updated; it runs again for the inputs of the next block. A
    weight is recognised in every matrix product that uses it, so each expert of a stacked weight has its own
    statistics.

    The activations of all batches between two blocks, the Gram matrices of one block in float64, and a copy of the
    weights are in memory. On an error or an interruption, the weights are restored.

    Args:
        model: A model with a list of blocks, such as the language models of transformers.
        batches: Each batch is a tensor, or a tuple or list of arguments, or a mapping of keyword arguments. Tokens
            where an `attention_mask` is 0 enter no statistic and no error.
        pattern: One pattern, or several by weight, as for jobs.
        scores: Scores of the masks: `wanda`, `ria`, `sparsegpt` or `magnitude`.
        update: Update of the kept weights: `admm` (which starts from the mask of the scores), `reconstruct`, or None.
        score_options: Options of the scores.
        update_options: Options of the update, such as `damping`.
        inputs_from: Whether statistics are gathered from the outputs of the `pruned` or the `dense` blocks before.
        min_tokens: Fewest tokens that a matrix, such as that of an expert, must get.
        few_tokens: What happens to a matrix that gets fewer, or whose inputs are all 0: `refuse`, or `without data`:
            masked by its weights alone, not updated, and named in the report.
        blocks: Name of the list of blocks, such as `model.layers`; by default the one with the most weights.
        layers: Names or globs of the weights to prune; by default all matrices in the blocks except routers.
        exclude: Names or globs of weights that stay dense.
        layouts: Axes of weights by name, such as `stack in out`, where names and modules do not show them.
        threads: Threads of the solvers and of updates; by default their own settings.
        progress: Whether to show a progress bar; by default in terminals and notebooks.

    Returns:
        The report: masks, tokens and errors of each weight, and the errors of each block's output.

    Raises:
        PruningError: If there is no list of blocks, the model does not run it in order, a batch does not fit,
            a weight is parametrized, an activation is not finite, or a matrix gets too few tokens.
        MasksmithError: As patterns, scores, solvers and updates do.
    """
    options = Options(
        scores, update, score_options or {}, update_options or {}, inputs_from, min_tokens, few_tokens, threads
    )
    block_list = find_blocks(model, blocks)
    weights = weights_of(model, block_list, TensorPatterns.of(pattern), layers=layers, exclude=exclude, layouts=layouts)
    with prepared(model), _restored_on_failure([weight for group in weights.by_block for weight in group]):
        run = _Run(block_list, weights.by_block, capture(model, block_list, batches), options)
        shown = tqdm(run.order, f"pruning {block_list}", disable=not _show_progress(progress), leave=False)
        reports = [run.prune_block(number) for number in shown]
    return PrunedModel(block_list, reports, weights.skipped)


class _Run:
    """The activations of the dense and the pruned model between two blocks."""

    def __init__(
        self, blocks: BlockList, weights: Sequence[Sequence[BlockWeight]], captured: Captured, options: Options
    ) -> None:
        self._blocks, self._weights, self._captured, self._options = blocks, weights, captured, options
        self.order = captured.order
        self._dense = self._pruned = captured.inputs

    def prune_block(self, number: int) -> BlockReport:
        """Prune a block and go on to the next."""
        started = time.perf_counter()
        name, block = self._blocks.name(number), self._blocks.modules[number]
        calls, self._captured.calls[number] = self._captured.calls[number], []
        watcher = BlockWatcher(block, name, self._weights[number])
        on_dense = self._options.inputs_from == "dense" or self._dense is self._pruned
        target = self._forward(block, calls, self._dense, watcher if on_dense else None)
        before = target
        if self._dense is not self._pruned:
            before = self._forward(block, calls, self._pruned, None if on_dense else watcher)
        error_before = self._error(before, target, name)
        del before
        for statistics in watcher.statistics.values():
            check_token_count(statistics, self._options)
        reports = [prune_weight(statistics, self._options) for statistics in watcher.statistics.values()]
        self._dense, self._pruned = target, self._forward(block, calls, self._pruned, None)
        error_after = self._error(self._pruned, target, name)
        return BlockReport(name, reports, error_before, error_after, time.perf_counter() - started)

    def _forward(
        self, block: torch.nn.Module, calls: Sequence[Call], inputs: Sequence[Tensors], watcher: BlockWatcher | None
    ) -> list[Tensors]:
        outputs = []
        for batch, (call, given) in enumerate(zip(calls, inputs, strict=True)):
            with nullcontext() if watcher is None else watcher.watching(batch, self._captured.kept[batch]):
                outputs.append(call.run(block, given))
        return outputs

    def _error(self, outputs: Sequence[Tensors], target: Sequence[Tensors], name: str) -> float:
        """Return the squared difference of outputs, as a share of the target's square; padding does not count."""
        difference = energy = 0.0
        for batch, kept in enumerate(self._captured.kept):
            ours, wanted = outputs[batch][0].double(), target[batch][0].double()
            if kept is not None:
                ours, wanted = ours[kept], wanted[kept]
            difference += float((ours - wanted).square().sum())
            energy += float(wanted.square().sum())
            if not difference + energy < float("inf"):
                raise PruningError(f"its output contains NaN or infinity in batch {batch}", name)
        return difference / energy if energy else 0.0


@contextmanager
def _restored_on_failure(weights: Sequence[BlockWeight]) -> Iterator[None]:
    copies = [weight.parameter.detach().clone() for weight in weights]
    try:
        yield
    except BaseException:
        for weight, copy in zip(weights, copies, strict=True):
            weight.parameter.data.copy_(copy)
        raise


def _show_progress(progress: bool | None) -> bool:
    return progress if progress is not None else (sys.stderr.isatty() or "ipykernel" in sys.modules)
