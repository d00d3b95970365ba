"""Collect the results of refreshes: a report for each layer, and a record for each refresh, which loggers get."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from masksmith_client._errors import InputError
from masksmith_wire.totals import total_gap, total_retained

from .loggers import Logger, metrics_of
from .refresh_worker.messages import SOLUTION_FIELDS, LayerResult, RefreshResponse
from .refresher import PendingRequest
from .report import LayerReport, RefreshRecord


@dataclass(frozen=True)
class SavedHistory:
    """Reports and records of a saved state.

    Attributes:
        layers: The last report of every layer.
        refreshes: Records, oldest first.
    """

    layers: list[LayerReport]
    refreshes: list[RefreshRecord]

    @property
    def late(self) -> int:
        """Number of late refreshes up to the last record; see `RefreshRecord.late`."""
        return self.refreshes[-1].late if self.refreshes else 0

    @classmethod
    def read(cls, state: Mapping[str, Any], names: Collection[str]) -> SavedHistory:
        """Read the reports and records of a state that has both members of `History.state`.

        Args:
            state: The state.
            names: Names of the layers, each of which must have one report.

        Raises:
            InputError: If a field of a report or a record is missing or has another type (the message names it), or if
                the reports are not those of the layers.
        """
        try:
            saved = _SAVED_HISTORY.validate_python({name: state[name] for name in ("layers", "refreshes")})
        except ValidationError as error:
            first = error.errors()[0]
            place = "".join(f"[{part!r}]" for part in first["loc"])
            raise InputError(
                f"the checkpoint's state{place}: {first['msg']}: pass what state_dict() returned"
            ) from None
        if sorted(report.name for report in saved.layers) != sorted(names):
            raise InputError("the checkpoint's layers are not those of its masks: pass what state_dict() returned")
        return saved


_SAVED_HISTORY = TypeAdapter(SavedHistory)


class History:
    """Stores the last report of every layer, and the records of all refreshes whose responses were applied.

    Attributes:
        layers: Reports by layer name; their densities are set when a report is requested.
        records: Records, oldest first.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.layers = {name: LayerReport(name, shape, density=1.0) for name, shape in shapes.items()}
        self.records: list[RefreshRecord] = []
        self._entries = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
        self._loggers: list[Logger] = []
        # Records before this index are from a loaded checkpoint; the run that saved it has logged them.
        self._first_own_record = 0
        self._first_new_record = 0  # index of the first record that the loggers have not got

    def add(
        self,
        response: RefreshResponse,
        pending: PendingRequest,
        applied_at: int,
        dense_layers: Collection[str],
        late: int = 0,
    ) -> None:
        """Record a response whose masks were applied.

        Args:
            response: The response.
            pending: The request that it answers.
            applied_at: Number of optimizer steps after which the masks were applied.
            dense_layers: Layers that were dense until then: for these, no entry counts as changed.
            late: Number of refreshes so far that became due while an earlier one was pending.
        """
        changed_entries = {
            name: 0 if name in dense_layers else result.added + result.dropped
            for name, result in response.layers.items()
        }
        for name, result in response.layers.items():
            self.layers[name] = self._report(name, result, pending.step, changed_entries[name])
        results = response.layers.values()
        new = [result for result in results if result.has_new_mask]
        all_changed_entries = sum(changed_entries.values())
        self.records.append(
            RefreshRecord(
                asked_at=pending.step,
                applied_at=applied_at,
                wait_s=time.monotonic() - pending.requested_s,
                pattern=str(pending.pattern),
                sent=sum(not result.unchanged for result in results),
                unchanged=sum(result.unchanged for result in results),
                failed=sum(result.error is not None for result in results),
                sad=all_changed_entries,  # the sum of absolute differences of the masks
                flip_rate=all_changed_entries / sum(self._entries.values()),
                retained=total_retained((result.objective, result.retained, result.total_score) for result in new),
                optimal=all(_is_optimal(result) for result in results if not result.unchanged),
                gap=_gap(new),
                late=late,
            )
        )

    def log_to(self, logger: Logger) -> None:
        """Add a logger, and pass it the records so far, without those of a loaded checkpoint.

        The other loggers get the records that are new to them.
        """
        for record in self.records[self._first_own_record : self._first_new_record]:
            logger(metrics_of(record), record.applied_at)
        self._loggers.append(logger)
        self.log()

    def log(self) -> None:
        """Pass the new records to all loggers."""
        new, self._first_new_record = self.records[self._first_new_record :], len(self.records)
        for record in new:
            for logger in self._loggers:
                logger(metrics_of(record), record.applied_at)

    def state(self) -> dict[str, Any]:
        """Return reports and records as plain lists and dicts."""
        return {
            "layers": [asdict(report) for report in self.layers.values()],
            "refreshes": [asdict(record) for record in self.records],
        }

    def restore(self, saved: SavedHistory) -> None:
        """Restore reports and records."""
        self.layers = {report.name: report for report in saved.layers}
        self.records = list(saved.refreshes)
        self._first_own_record = self._first_new_record = len(self.records)

    def _report(self, name: str, result: LayerResult, asked_at: int, sad: int) -> LayerReport:
        """Return the report of a layer after a result; without a new mask, only `sad` and `flip_rate` change."""
        report = replace(self.layers[name], sad=sad, flip_rate=sad / self._entries[name])
        if not result.has_new_mask:
            return report
        return replace(report, asked_at=asked_at, **{field: getattr(result, field) for field in SOLUTION_FIELDS})


def _is_optimal(result: LayerResult) -> bool:
    """Whether a layer got a new mask that was proved optimal."""
    return result.error is None and result.status == "optimal" and result.gap == 0.0


def _gap(results: Sequence[LayerResult]) -> float | None:
    """Return the gap of new masks together; None if a mask has no objective or bound, or there are no masks."""
    if any(result.objective is None or result.upper_bound is None for result in results):
        return None
    return total_gap((result.objective or 0.0, result.upper_bound) for result in results)
