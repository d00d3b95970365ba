"""Prunes a model block by block, in place and in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from masksmith.layouts import without_wrappers
from masksmith.patterns.by_tensor import PatternsByTensor, TensorPatterns
from masksmith.patterns.matching import Globs

from .activations import ActivationsInMemory
from .axes import with_observed_layouts
from .block_run import BlockRun
from .blocks import check_differentiable, find_blocks
from .capture import prepared
from .captured import CapturedInMemory
from .first_block import capture_by_first_block
from .options import FewTokens, InputsFrom, Options, Order
from .report import PrunedModel
from .weights import BlockWeight, weights_of


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
    order: Order = "together",
    tune_steps: int | None = None,
    tune_rate: float = 0.02,
    blocks: str | None = None,
    layers: Globs = None,
    exclude: Globs = None,
    layouts: Mapping[str, str] | None = None,
    threads: int | None = None,
    progress: bool | None = None,
) -> PrunedModel:
    """Prune the blocks of a model in place, one after the other, each on the outputs of the blocks before it.

    First the arguments that the blocks are called with are recorded, except what the block before returns. The first
    batch runs through all blocks of the dense model. If the same arguments are recorded when only the first block
    computes and the others are skipped, the other batches run in this faster way. Then each block runs while statistics
    of its weights' inputs are gathered; its weights are masked and, by default, updated and tuned; and it runs again to
    compute the inputs of the next block. Statistics include every matrix product with a weight, and each expert of a
    stacked weight has its own.

    Besides the model, these are in memory: the recorded calls, the activations of all batches before and after one
    block, the Gram matrices of one block in float64, and a copy of the weights to prune. On an error or an
    interruption, the weights are restored.

    Args:
        model: A model with a list of blocks, such as the language models of transformers.
        batches: Each batch is a tensor, or a tuple or list of arguments, or a mapping of keyword arguments. Tokens
            at which the argument `attention_mask` is 0 enter no statistic and no error.
        pattern: One pattern, or several by weight, as for jobs.
        scores: Scores of the masks: `wanda`, `ria`, `sparsegpt` or `magnitude`.
        update: Update of the kept weights: `admm` (which starts from the mask of the scores), `reconstruct`, or None.
        score_options: Options of the scores.
        update_options: Options of the update, such as `damping`.
        inputs_from: Whether statistics are gathered from the outputs of the `pruned` or the `dense` blocks before.
        min_tokens: Minimum number of tokens that a matrix, such as that of an expert, must get.
        few_tokens: Treatment of a matrix that gets fewer, or whose inputs are all 0: `refuse`, or `without data`:
            masked by its weights alone, not updated, and named in the report.
        order: `together`: a block's statistics are gathered before any of its weights is pruned. `sequential`:
            weights of the same inputs are one group (query, key and value; output; gate and up; down), and each
            group's statistics come from a pass in which the groups before it are pruned.
        tune_steps: Steps of Adam on the kept weights of a pruned block, to reduce the error of its output; the masks
            stay. Each step takes one batch, so with small batches the same time is enough for more steps. By default
            128 with an update, and none without one.
        tune_rate: Rate of these steps, relative to the root mean square of each weight; it falls to 0 as a cosine.
        blocks: Name of the list of blocks, such as `model.layers`; by default the one with the most weights.
        layers: Names or globs of the weights to prune; by default all matrices in the blocks except routers.
        exclude: Names or globs of weights that stay dense.
        layouts: Axes, such as `stack in out`, by name of weight; needed if neither a weight's name and module nor the
            products of the first batch show them.
        threads: Threads of the solvers and of updates; by default their own settings.
        progress: Whether to show a progress bar; by default in terminals and notebooks.

    Returns:
        The report: masks, tokens and errors of each weight, and the errors of each block's output.

    Raises:
        PruningError: If an option is invalid, there is no list of blocks, the weights cannot be selected, the model
            does not run the blocks in order, there is no batch or one that does not fit, a weight is parametrized, an
            activation is not finite, or a matrix gets too few tokens.
        MasksmithError: As patterns, scores, solvers and updates do.
    """
    options = Options(
        scores, update, score_options or {}, update_options or {}, inputs_from, min_tokens, few_tokens, threads,
        order, tune_steps, tune_rate,
    )  # fmt: skip
    model = without_wrappers(model)
    block_list = find_blocks(model, blocks)
    if options.tune_steps_or_default:
        check_differentiable(block_list)
    patterns = TensorPatterns.of(pattern)
    with prepared(model):
        layouts, unobserved, batches = with_observed_layouts(model, block_list, batches, layouts)
    weights = weights_of(
        model, block_list, patterns, layers=layers, exclude=exclude, layouts=layouts, unobserved=unobserved
    )
    with prepared(model), _restored_on_failure([weight for group in weights.by_block for weight in group]):
        captured = CapturedInMemory(capture_by_first_block(model, block_list, batches))
        run = BlockRun(block_list, captured, options, lambda position, kind: ActivationsInMemory())
        numbers = tqdm(captured.order, f"pruning {block_list}", disable=not _shows_progress(progress), leave=False)
        reports = [run.prune_block(number, weights.by_block[number]) for number in numbers]
    return PrunedModel(block_list, reports, weights.skipped, weights.shared_names)


@contextmanager
def _restored_on_failure(weights: Sequence[BlockWeight]) -> Iterator[None]:
    copies = [weight.parameter.detach().clone() for weight in weights]
    try:
        yield
    except BaseException:
        for weight, copy in zip(weights, copies, strict=True):
            weight.parameter.data.copy_(copy)
        raise


def _shows_progress(progress: bool | None) -> bool:
    return progress if progress is not None else (sys.stderr.isatty() or "ipykernel" in sys.modules)
