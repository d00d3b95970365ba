"""Score stage: computes a shard's scores; values computed from all rows of a tensor are cached in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from masksmith import ScoresError, scores
from masksmith.layouts import Layout
from masksmith.layouts.dtypes import FLOAT_DTYPES
from masksmith.patterns import NM
from masksmith.scores.by_layout import PER_ENTRY
from masksmith_state.blobs.names import statistic_name
from masksmith_state.errors import DamagedBlobError
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire.digests import digest_document
from masksmith_wire.dtypes import score_dtype
from masksmith_wire.scores import SCORES_VERSION, ScoreMethod

from .indices import error_indices_from
from .load import Array, InputReader
from .magnitudes import MagnitudeRows
from .memory import reserved_memory
from .work import ShardWork

SLICE_ENTRIES = 2**21
"""Entries read at a time for sums over all rows; a constant, so that rounding does not depend on the shards."""


def score_shard(work: ShardWork) -> Array | MagnitudeRows:
    """Compute the scores of a shard's rows.

    For magnitudes of a matrix under n:m along `in`, return a source that computes them when the solver reads the rows.

    Raises:
        ScoresError: If weights have values from which no score can be computed, or an option is out of its range.
        StatisticError: If a statistic has such values; a subclass of `ScoresError`.
        UploadMissingError: If an upload no longer exists.
        InsufficientMemoryError: If a Gram matrix does not fit into memory.
    """
    tensor, shard = work.tensor, work.shard
    if _can_defer_magnitudes(work):
        data = work.inputs.data(tensor, shard.first, shard.last)
        return MagnitudeRows(data, tensor.dtype, (shard.last - shard.first, tensor.shape[1]))
    scoring = Scoring(work.inputs, work.tensor, work.specification.scores, work.check)
    if work.tensor.layout is not None:
        return scoring.matrices(work.tensor.layout, work.shard.first, work.shard.last)
    return scoring.rows(work.shard.first, work.shard.last)


def _can_defer_magnitudes(work: ShardWork) -> bool:
    """Whether the scores are magnitudes of a matrix `[out, in]` of floats, under tiles along `in`."""
    tensor, scores_method, pattern = work.tensor, work.specification.scores, work.specification.pattern
    is_matrix = len(tensor.shape) == 2 and tensor.layout is None and tensor.dtype in FLOAT_DTYPES
    is_magnitude = scores_method.name == "magnitude" and not scores_method.options
    return is_matrix and is_magnitude and isinstance(pattern, NM) and pattern.axis == "in"


class Scoring:
    """Computes the scores of a tensor, some rows at a time.

    Args:
        inputs: Reads weights and statistics.
        tensor: The tensor.
        method: Score method.
        check: Called regularly; raises an error to stop the work.
    """

    def __init__(
        self, inputs: InputReader, tensor: PlannedTensor, method: ScoreMethod, check: Callable[[], None]
    ) -> None:
        self._inputs, self._store, self._tensor, self._check = inputs, inputs.store, tensor, check
        self._method, self._options = method, dict(method.options)

    def rows(self, first: int, last: int) -> Array:
        """Compute the scores of rows `first` to `last` (exclusive).

        Raises:
            ScoresError: If weights or statistics have values from which no score can be computed.
            UploadMissingError: If an upload no longer exists.
        """
        if self._method.block_shape is not None:
            return self._whole_blocks(first, last, self._method.block_shape[0])
        if self._method.name == "pfp" or self._options.get("group") == "in":
            shape = self._tensor.shape
            # One score per input channel: `[1, in]` for a matrix, `[1, in, 1, 1]` for a 2-d convolution.
            columns = self._cached(self._channels).astype(score_dtype(self._tensor.dtype))
            columns = columns.reshape(1, -1, *(1 for _ in shape[2:]))
            return np.broadcast_to(columns, (last - first, *shape[1:])).copy()
        if self._method.name == "ria":
            sums = self._cached(self._column_sums)
            return self._score(first, last, column_sums=sums)
        return self._score(first, last)

    def matrices(self, layout: Layout, first: int, last: int) -> Array:
        """Score the matrices in rows `first` to `last` (exclusive) of the first dimension; raises as `rows` does.

        Each matrix is scored separately; the range must consist of whole matrices.

        A statistic with a number per entry has the shape of the tensor. Other statistics are stacked as the tensor's
        matrices are; without a stack, the whole statistic belongs to the tensor's only matrix.
        """
        # Without a stack, the range is the whole tensor.
        starts = range(self._tensor.shape[0]) if layout.is_stack else ()
        return self._unless_all_underflow(
            lambda: self._matrices(layout, first, last),
            lambda: (self._matrices(layout, start, start + 1) for start in starts),
        )

    def _matrices(self, layout: Layout, first: int, last: int) -> Array:
        weight, statistic = self._inputs.rows(self._tensor, first, last), self._tensor.statistic
        kind, values = None if statistic is None else statistic.name, None
        memory: AbstractContextManager[None] = nullcontext()
        if statistic is not None:
            span = (first, last) if layout.is_stack or kind in PER_ENTRY else (0, statistic.shape[0])
            if kind == "gram":
                stack_rows = span[1] - span[0] if layout.is_stack else None
                memory = reserved_memory(statistic, "sparsegpt", self._check, stack_rows)
        with memory, error_indices_from(first, of_statistics=layout.is_stack):
            if statistic is not None:
                values = self._inputs.rows(statistic, *span)
            result: Array = scores.by_layout(
                layout, self._method.name, weight, values, kind, name=self._tensor.name, **self._options
            )
            return result

    def _score(self, first: int, last: int, **extra_options: Any) -> Array:
        tensor, method = self._tensor, self._method
        statistic, kind, options = None, None, self._options | extra_options
        if tensor.statistic is not None:
            kind = tensor.statistic.name
            if kind == "gram":
                # `_inverse_diagonal` has applied the method's options, so the score gets none.
                statistic, kind, options = self._cached(self._inverse_diagonal), "inverse_diagonal", {}
            else:
                statistic = self._inputs.rows(tensor.statistic, *self._span(kind, first, last))
        if method.name == "given" and statistic is not None:
            return statistic
        weight = self._inputs.rows(tensor, first, last)
        score = partial(scores.by_name, method.name, weight, statistic, kind, name=tensor.name, **options)
        with error_indices_from(first):
            return self._unless_all_underflow(score, lambda: self._score_of_slices(extra_options))

    def _unless_all_underflow(self, score: Callable[[], Array], parts: Callable[[], Iterator[Array]]) -> Array:
        """Score a part of the tensor; all of its scores may underflow, unless those of the whole tensor do.

        Args:
            score: Scores the part.
            parts: Yields the scores of all parts of the tensor; may yield nothing if the part is the whole tensor.

        Raises:
            ScoreUnderflowError: If the scores of the whole tensor underflow.
        """
        try:
            return score()
        except scores.ScoreUnderflowError:
            with scores.underflow_allowed():
                if not any(map(scores.has_normal_score, parts())):
                    raise
                return score()

    def _score_of_slices(self, extra_options: Mapping[str, Any]) -> Iterator[Array]:
        return (self._score(first, last, **extra_options) for first, last in self._slices())

    def _span(self, kind: str, first: int, last: int) -> tuple[int, int]:
        """First and last (exclusive) row of the statistic that the scores of some rows need."""
        assert self._tensor.statistic is not None
        return (first, last) if kind in PER_ENTRY else (0, self._tensor.statistic.shape[0])

    def _whole_blocks(self, first: int, last: int, height: int) -> Array:
        """Score rows `first` to `last`: extend the range to whole blocks of `height` rows, score it, cut back."""
        top, bottom = first // height * height, min(-(-last // height) * height, self._tensor.shape[0])
        return self._score(top, bottom)[first - top : last - top]

    def _slices(self) -> Iterator[tuple[int, int]]:
        rows, cols = self._tensor.shape[0], int(np.prod(self._tensor.shape[1:]))
        step = max(1, SLICE_ENTRIES // cols)
        for first in range(0, rows, step):
            self._check()
            yield first, min(first + step, rows)

    def _column_sums(self) -> Array:
        total = np.zeros(self._tensor.shape[1:])
        for first, last in self._slices():
            total += scores.column_sums(self._inputs.rows(self._tensor, first, last))
        return total

    def _channels(self) -> Array:
        """For each input channel: for `pfp`, the largest sensitivity of all rows; for `taylor`, the sum of all terms.

        `_score` gives all rows of a slice the same values here (maximum or sum over the slice), so the first row
        suffices.

        Raises:
            ScoresError: Also if a sum over the slices overflows in the dtype of the scores.
        """
        merge = np.maximum if self._method.name == "pfp" else np.add
        total, has_finite_terms = np.zeros(self._tensor.shape[1]), True
        dtype = score_dtype(self._tensor.dtype)
        with np.errstate(over="ignore"):  # Refused below.
            for first, last in self._slices():
                channels = self._score(first, last)[0].reshape(len(total), -1)[:, 0]
                has_finite_terms &= bool(np.isfinite(channels).all())
                total = merge(total, channels)
            is_finite = bool(np.isfinite(total.astype(dtype)).all())
        if has_finite_terms and not is_finite:
            reason = f"the sum of a group overflows in {dtype.name}; scale the weight down"
            raise ScoresError(reason, name=self._tensor.name)
        return total

    def _inverse_diagonal(self) -> Array:
        assert self._tensor.statistic is not None
        with reserved_memory(self._tensor.statistic, "sparsegpt", self._check):
            gram = self._inputs.rows(self._tensor.statistic)
            return scores.inverse_diagonal(gram, name=self._tensor.name, **self._options)

    def _cached(self, compute: Callable[[], Array]) -> Array:
        """Return an array that all shards use: load it from the store, or compute and store it.

        Returns:
            The array, flattened, in float64.
        """
        key = digest_document(
            {
                "tensor": self._tensor.inputs,
                "scores": str(self._method),
                "part": compute.__name__,
                "version": SCORES_VERSION,
            }
        )
        try:
            return np.frombuffer(self._store.get_sealed(statistic_name(key)), "<f8")
        except (FileNotFoundError, DamagedBlobError):
            values = compute().astype("<f8")
            self._store.put_sealed(statistic_name(key), values.tobytes())
            return values.reshape(-1)
