"""`masksmith prune --local`: solve the masks of a checkpoint in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import numpy as np

from masksmith._cores import available_cores
from masksmith._freed_memory import keep_freed_memory
from masksmith.layouts.dtypes import FLOAT_DTYPES
from masksmith.patterns import NM
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client.checkpoints.magnitudes import MagnitudeRows, ThreadBuffers, magnitudes
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.solved import Solve, SolvedTensor, TensorToSolve
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.pruned_record import update_record
from masksmith_wire.scores import ScoreMethod
from masksmith_wire.updates import UpdateMethod

from .local import array_of, import_library
from .local_update import WeightToUpdate, update_weight

PARALLEL_TENSORS = 2
"""Maximum number of tensors that are solved at the same time, each on its share of the cores.

This way, one tensor is solved while another is read.
"""
AHEAD_TENSORS = 4
"""Number of tensors that are submitted beyond those that can be solved at once, so that solving goes on while the
caller writes a tensor or syncs a file to the disk."""
LARGE_BYTES = 2**27
"""A tensor whose values and statistics together are larger is solved alone, so that memory stays bounded."""


def local_solver(method: PruneMethod, threads: int | None) -> Solve:
    """Return a function that solves tensors in this process.

    Args:
        method: Scores and update.
        threads: Number of threads of all tensors together; None for one per available core.

    Raises:
        InputError: If the library, or a package that the update needs, is not installed.
    """
    masksmith = import_library()
    if method.update is not None:
        with as_input_errors(masksmith.MissingExtraError):
            getattr(masksmith, method.update.name)  # Raises now, not after the first solve, if torch is missing.

    keep_freed_memory()
    cores = threads or available_cores()
    buffers = ThreadBuffers()

    def solve_one(tensor: TensorToSolve, tensor_threads: int) -> SolvedTensor:
        try:
            return _solve(masksmith, tensor, method, tensor_threads, buffers)
        except masksmith.MasksmithError as error:
            raise InputError(f"{tensor.chosen.name!r}: {error}") from None

    parallel_tensors = 1 if method.update is not None else min(PARALLEL_TENSORS, cores)
    return partial(_solve_ahead, solve_one, cores, parallel_tensors)


def _solve_ahead(
    solve_one: Callable[[TensorToSolve, int], SolvedTensor],
    cores: int,
    parallel_tensors: int,
    tensors: Iterator[TensorToSolve],
) -> Generator[SolvedTensor]:
    """Solve tensors and yield them in order, while the caller writes the masks of earlier ones.

    Args:
        solve_one: Solves a tensor on a number of threads.
        cores: The number of threads of all tensors together.
        parallel_tensors: Maximum number of tensors that are solved at the same time; a tensor of more than
            `LARGE_BYTES` is solved alone.
        tensors: The tensors.
    """
    executor = ThreadPoolExecutor(parallel_tensors)
    pending = deque[Future[SolvedTensor]]()
    was_large = False
    try:
        for tensor in tensors:
            is_large = tensor.data_bytes > LARGE_BYTES
            if is_large or was_large:
                wait(pending)  # So that no other tensor is solved beside a large one.
            was_large = is_large
            pending.append(executor.submit(solve_one, tensor, cores if is_large else cores // parallel_tensors))
            while len(pending) > (1 if is_large else parallel_tensors + AHEAD_TENSORS):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _solve(
    masksmith: Any, tensor: TensorToSolve, method: PruneMethod, threads: int, buffers: ThreadBuffers
) -> SolvedTensor:
    chosen = tensor.chosen
    scores = _scores(tensor, method.scores, buffers)
    solution = masksmith.solve(scores, chosen.pattern, layout=chosen.layout, threads=threads, name=chosen.name)
    updated_bytes: bytes | None = None
    update_entry: dict[str, Any] = {}
    if method.update is not None:
        solution, updated_bytes, update_entry = _update(tensor, method.update, solution)
    mask = np.asarray(solution.mask)
    certificate = {
        "status": str(solution.status),
        "objective": float(solution.objective),
        "upper_bound": float(solution.upper_bound),
        "gap": float(solution.gap),
        "retained": float(solution.retained),
        "density": float(solution.density),
        "kept": int(np.count_nonzero(mask)),
        "solver": solution.stats["solver"],
        "solve_s": solution.stats["solve_s"],
        **update_entry,
    }
    return SolvedTensor(chosen.name, mask, certificate, updated_bytes)


def _update(tensor: TensorToSolve, method: UpdateMethod, solution: Any) -> tuple[Any, bytes, dict[str, Any]]:
    """Update a tensor's weights; returns solution, bytes of the new weights, and the certificate's entry `update`."""
    chosen = tensor.chosen
    assert chosen.layout is not None
    assert chosen.pattern is not None
    assert tensor.gram is not None
    weight, gram = _read(tensor), array_of(tensor.gram)
    to_update = WeightToUpdate(chosen.name, chosen.dtype, chosen.layout, chosen.pattern, weight, gram)
    solution, updated_bytes, report = update_weight(to_update, method, solution)
    return solution, updated_bytes, {"update": update_record(method, report)}


def _scores(tensor: TensorToSolve, method: ScoreMethod, buffers: ThreadBuffers) -> Any:
    """Return the scores of a tensor.

    Magnitudes of floats, without options, are computed while the weight is read. Other scores need the whole weight in
    memory, and are computed for each of its matrices separately.
    """
    from masksmith.scores import by_layout

    chosen = tensor.chosen
    if method.name == "magnitude" and not method.options and tensor.source.dtype in FLOAT_DTYPES:
        return (
            MagnitudeRows(tensor.source, buffers)
            if _is_solved_by_rows(tensor)
            else magnitudes(tensor.source, buffers.values)
        )
    assert chosen.layout is not None
    statistic, kind = tensor.statistic, None if tensor.statistic is None else tensor.statistic.kind
    values = None if statistic is None else array_of(statistic.tensor)
    return by_layout(chosen.layout, method.name, _read(tensor), values, kind, name=chosen.name, **method.options)


def _is_solved_by_rows(tensor: TensorToSolve) -> bool:
    """Whether a tensor is solved a few rows at a time.

    This is so for a matrix `[out, in]` whose values are in the file, not computed from scales, under n:m along `in` or
    transposable n:m.
    """
    chosen = tensor.chosen
    pattern, layout = chosen.pattern, chosen.layout
    is_matrix = len(chosen.shape) == 2 and (
        layout is None or (pattern is not None and layout.is_plain(pattern, chosen.shape))
    )
    # The axis of a transposable pattern is always "in".
    return tensor.source.is_stored and is_matrix and isinstance(pattern, NM) and pattern.axis == "in"


def _read(tensor: TensorToSolve) -> Any:
    """Read a weight as an array; bfloat16 becomes float32, as in a service, so that scores are equal."""
    source = tensor.source
    return to_numpy(memoryview(source.read()), source.dtype, source.shape)
