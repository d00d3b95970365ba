"""`masksmith solve --local`: solve in this process; and `import_library`, for all commands that need the solver."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from masksmith.layouts import ITEM_BYTES, Layout, default_axes
from masksmith_client._errors import InputError, as_input_errors
from masksmith_client._progress import Bar
from masksmith_client.results.atomic_write import atomic_write
from masksmith_client.results.masks import Masks
from masksmith_client.submission.prepared_job import PreparedJob
from masksmith_client.submission.streamed_tensor import StreamedTensor
from masksmith_wire.documents import JobState, LayoutInput, TensorReport
from masksmith_wire.dtypes import to_numpy
from masksmith_wire.errors import Code, TensorError
from masksmith_wire.headers import build_header
from masksmith_wire.masks import MaskInfo, file_header, pack
from masksmith_wire.measures import UpdateReport

from .local_update import WeightToUpdate, update_weight
from .report import SolveReport

SHORTEST_LIMIT_S = 1e-6
"""Time limit of a batch, in seconds, if no time is left of the limit that all batches share."""
BATCH_BYTES = 2**30
"""Upper bound of the bytes of weights that are solved together; a larger weight is solved alone."""


def import_library() -> Any:
    """Import the library.

    Raises:
        InputError: If a package is not installed, or cannot be imported; the message says what to install.
    """
    try:
        import masksmith

        _ = masksmith.solve_many  # The package is lazy: this imports numba and OR-Tools.
    except ModuleNotFoundError as error:
        raise InputError(f"solving locally needs {error.name}: pip install 'masksmith[solver]'") from None
    except ImportError as error:
        advice = "pip install --force-reinstall 'masksmith[solver]'"
        raise InputError(f"solving locally needs a package that cannot be imported ({error}): {advice}") from None
    return masksmith


def solve_locally(
    prepared: PreparedJob, output: Path, started: float, weights_output: Path | None = None
) -> SolveReport:
    """Solve all weights, write the files of masks and updated weights if any weight was solved, and return the report.

    Args:
        prepared: The weights and the options.
        output: The masks file.
        started: `time.monotonic()` when the command began to work.
        weights_output: The file of updated weights; None if weights are not updated.
    """
    options = prepared.specification.options
    search = _LocalSearch(prepared)
    search.allocate()
    with Bar("solving", sum(weight.data_bytes for weight in prepared.weights), show="lines", in_bytes=True) as bar:
        for batch in _batches(prepared.weights):
            search.solve(batch)
            bar.advance(sum(weight.data_bytes for weight in batch))
    if search.packed_masks:
        infos = {name: info.with_digest(search.packed_masks[name]) for name, info in search.infos.items()}
        _write(output, file_header(infos), (np.ascontiguousarray(search.packed_masks[name]).data for name in infos))
        if weights_output is not None:
            types = {weight.name: (weight.dtype, weight.shape) for weight in prepared.weights}
            header = build_header({name: types[name] for name in search.updated_weights})
            _write(weights_output, header, search.updated_weights.values())
    has_masks = bool(search.packed_masks)
    return SolveReport(
        prepared.pattern_text,
        options.solver,
        [search.reports[weight.name] for weight in prepared.weights],
        prepared.skipped,
        str(output) if has_masks else None,
        time.monotonic() - started,
        budget=options.budget,
        budget_gap=search.budget_gap,
        weights=str(weights_output) if has_masks and weights_output is not None else None,
        notes=prepared.notes,
    )


PROOF_FIELDS = ("objective", "upper_bound", "gap", "retained", "total_score", "density")
"""Fields of a `TensorReport` that are attributes of the solution."""
STATS_FIELDS = ("solve_s", "solver", "device")
"""Fields of a `TensorReport` that are in the solution's `stats`."""
MEASURE_FIELDS = ("fill", "storage_bytes", "diversity", "change", "spectrum")
"""Fields of a `TensorReport` that `masksmith.report` computes."""


class _LocalSearch:
    """Solves the weights of a job and collects masks, updated weights and reports by name."""

    def __init__(self, prepared: PreparedJob) -> None:
        self._library = import_library()
        self._options, self._budget = prepared.specification.options, prepared.specification.budget
        self._auxiliary = prepared.auxiliary
        self._patterns = prepared.patterns
        self._pattern = prepared.specification.pattern
        # Reports have patterns unless all tensors have the default pattern of the specification.
        self._shows_patterns = self._budget is not None or prepared.pattern_text != str(self._pattern)
        self.weights = prepared.weights
        self._previous: Mapping[str, Any] = {} if prepared.previous is None else self._open_previous(prepared.previous)
        # If --previous names a masks file, the file is in `prepared.previous`, and the option is None. Other values are
        # the id of a job or a reference, which only a service knows.
        if self._options.previous is not None:
            raise InputError(f"--previous {self._options.previous} is not a file; with --local pass a masks file")
        limit = self._options.time_limit_s
        self._deadline = None if limit is None else time.monotonic() + limit
        self.budget_gap: float | None = None
        self.reports: dict[str, TensorReport] = {}
        self.infos: dict[str, MaskInfo] = {}
        self.packed_masks: dict[str, npt.NDArray[np.uint8]] = {}
        self.updated_weights: dict[str, bytes] = {}
        self._check_installed()

    def _open_previous(self, path: Path) -> Masks:
        """Open the file of the previous masks.

        Raises:
            InputError: If the file has no mask of any weight, or if a mask and its weight differ in shape.
        """
        masks = Masks.open(path)
        weights = [weight for weight in self.weights if weight.name in masks]
        if not weights:
            raise InputError(f"{path} has no mask of any tensor that is solved")
        for weight in weights:
            shape, previous_shape = list(weight.shape), list(masks.shape(weight.name))
            if shape != previous_shape:
                raise InputError(f"{weight.name!r} has shape {shape}, its previous mask in {path} has {previous_shape}")
        return masks

    def _check_installed(self) -> None:
        """Refuse a solver or an update that needs a package which is not installed."""
        with as_input_errors(self._library.MissingExtraError):
            self._library.solvers.by_name(self._options.solver)
            if self._options.update is not None:
                getattr(self._library, self._options.update.name)  # The package is lazy: this imports the update.

    def allocate(self) -> None:
        """Allocate the budget, if there is one, to the weights: determine each weight's pattern.

        Raises:
            InputError: If the budget does not fit the pattern, or if the scores of a weight are invalid.
        """
        if self._budget is None:
            return
        try:
            allocation = self._library.allocate(_LazyScores(self), self._pattern, self._budget)
        except self._library.MasksmithError as error:
            raise InputError(f"the budget cannot be allocated: {error}") from None
        self._patterns, self.budget_gap = allocation.patterns, allocation.gap

    def solve(self, batch: list[StreamedTensor]) -> None:
        """Solve, update and measure weights; if this fails for one weight, record its failure, and solve the others."""
        try:
            solutions = self._solutions(batch)
        except self._library.MasksmithError as error:
            # One invalid weight makes the whole batch fail; if each is solved alone, only the invalid one fails.
            if len(batch) > 1:
                for weight in batch:
                    self.solve([weight])
                return
            self._record_failure(batch[0], error)
        else:
            for weight in batch:
                try:
                    self._store(weight, *self._update(weight, solutions[weight.name]))
                except (self._library.UpdateError, self._library.ScoresError) as error:
                    self._record_failure(weight, error)

    def _solutions(self, batch: list[StreamedTensor]) -> Mapping[str, Any]:
        scores = {weight.name: self.scores(weight) for weight in batch}
        options = {}
        if self._deadline is not None:
            options["time_limit_s"] = max(self._deadline - time.monotonic(), SHORTEST_LIMIT_S)
        solutions: Mapping[str, Any] = self._library.solve_many(
            scores,
            {name: self._patterns[name] for name in scores},
            self._options.solver,
            layout={weight.name: weight.layout for weight in batch if weight.layout is not None},
            **options,
        )
        return solutions

    def scores(self, weight: StreamedTensor) -> Any:
        """Return the scores of a weight, an array of its shape."""
        from masksmith.scores import by_layout

        statistic, method = self._auxiliary.statistics.get(weight.name), self._options.scores
        statistic_array, kind = (None, None) if statistic is None else (array_of(statistic.tensor), statistic.kind)
        layout = weight.layout or Layout(default_axes(weight.shape))
        return by_layout(
            layout, method.name, array_of(weight), statistic_array, kind, name=weight.name, **method.options
        )

    def _update(self, weight: StreamedTensor, solution: Any) -> tuple[Any, UpdateReport | None]:
        """Update a weight if the options have an update.

        Returns:
            Without an update, the given solution and None. With one, the solution with the updated weight's mask, and
            the report of the update.
        """
        if self._options.update is None:
            return solution, None
        layout, gram = weight.layout or Layout(default_axes(weight.shape)), array_of(self._auxiliary.grams[weight.name])
        to_update = WeightToUpdate(
            weight.name, weight.dtype, layout, self._patterns[weight.name], array_of(weight), gram
        )
        solution, updated, report = update_weight(to_update, self._options.update, solution, self._options.solver)
        self.updated_weights[weight.name] = updated
        return solution, report

    def _store(self, weight: StreamedTensor, solution: Any, update: UpdateReport | None) -> None:
        """Store a mask and its report.

        Raises:
            ScoresError: If the spectrum cannot be measured: a kept entry of the weight is not finite.
        """
        fields = self._report_fields(weight, solution)
        mask = np.asarray(solution.mask, dtype=np.bool_).reshape(weight.shape)
        self.packed_masks[weight.name] = pack(mask)
        self.infos[weight.name] = MaskInfo.of(weight.shape, solution.pattern, weight.layout)
        self.reports[weight.name] = TensorReport(
            name=weight.name,
            state=JobState.SUCCEEDED,
            shape=list(weight.shape),
            layout=None if weight.layout is None else LayoutInput.of(weight.layout),
            pattern=str(solution.pattern) if self._shows_patterns else None,
            status=str(getattr(solution.status, "value", solution.status)),  # type: ignore[arg-type]
            **fields,
            update=update,
        )

    def _report_fields(self, weight: StreamedTensor, solution: Any) -> dict[str, Any]:
        """Return the fields of a report in `PROOF_FIELDS`, `STATS_FIELDS` and `MEASURE_FIELDS`."""
        values = None  # Values of the weight; of the measures, only the spectrum needs them.
        if self._options.spectrum:
            updated = self.updated_weights.get(weight.name)
            values = array_of(weight) if updated is None else to_numpy(updated, weight.dtype, weight.shape)
        measures = self._library.report(
            solution,
            self._previous.get(weight.name),
            weight=values,
            item_bytes=ITEM_BYTES[weight.dtype],
            layout=weight.layout,
        ).as_dict()
        proof = {name: float(getattr(solution, name)) for name in PROOF_FIELDS}
        stats = {name: solution.stats[name] for name in STATS_FIELDS}
        return proof | stats | {name: measures[name] for name in MEASURE_FIELDS}

    def _record_failure(self, weight: StreamedTensor, error: Exception) -> None:
        codes = {
            self._library.ScoresError: Code.INVALID_SCORES,
            self._library.scores.StatisticError: Code.INVALID_CALIBRATION,
            self._library.UpdateError: Code.INVALID_CALIBRATION,
            self._library.WeightError: Code.INVALID_SCORES,
        }
        code = next((codes[kind] for kind in type(error).__mro__ if kind in codes), Code.SOLVER_REFUSED)
        self.updated_weights.pop(weight.name, None)  # It exists if the update succeeded, but the measurement failed.
        index = getattr(error, "index", None)
        tensor_error = TensorError(code=code, message=str(error), index=None if index is None else list(index))
        self.reports[weight.name] = TensorReport(
            name=weight.name, state=JobState.FAILED, shape=list(weight.shape), error=tensor_error
        )


class _LazyScores(Mapping[str, Any]):
    """The scores of all weights, computed at each look-up, so that one array is in memory at a time."""

    def __init__(self, search: _LocalSearch) -> None:
        self._search = search
        self._weights = {weight.name: weight for weight in search.weights}

    def __getitem__(self, name: str) -> Any:
        return self._search.scores(self._weights[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def array_of(tensor: StreamedTensor) -> npt.NDArray[Any]:
    """Read a tensor as an array; bfloat16 becomes float32."""
    return to_numpy(b"".join(tensor.read()), tensor.dtype, tensor.shape)


def _batches(weights: list[StreamedTensor]) -> Iterator[list[StreamedTensor]]:
    batch: list[StreamedTensor] = []
    size = 0
    for weight in weights:
        if batch and size + weight.data_bytes > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(weight)
        size += weight.data_bytes
    yield batch


def _write(output: Path, header: bytes, parts: Iterable[bytes | memoryview]) -> None:
    with atomic_write(output) as file:
        file.write(header)
        for part in parts:
            file.write(part)
