"""Collect the results of refreshes: a report for each layer, and a record for each refresh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from masksmith_wire.totals import total_retained

from .refresh_worker.messages import PROVED, LayerResult, RefreshResponse
from .refresher import Pending
from .report import LayerReport, RefreshRecord


class History:
    """Stores the last report of every layer, and the records of all refreshes.

    Attributes:
        layers: Reports by layer name; their densities are set when a report is requested.
        records: Records, oldest first.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.layers = {name: LayerReport(name, shape, 1.0) for name, shape in shapes.items()}
        self.records: list[RefreshRecord] = []
        self._entries = {name: torch.Size(shape).numel() for name, shape in shapes.items()}

    def add(self, response: RefreshResponse, pending: Pending, step: int, dense: Iterable[str]) -> None:
        """Record a response applied after optimizer step `step`; layers that were dense count no changed entries."""
        flips = {name: 0 if name in dense else one.added + one.dropped for name, one in response.layers.items()}
        for name, one in response.layers.items():
            self.layers[name] = self._report(name, one, pending.step, flips[name])
        results = response.layers.values()
        new = [one for one in results if one.has_new_mask]
        sad = sum(flips.values())
        self.records.append(
            RefreshRecord(
                asked_at=pending.step,
                applied_at=step,
                wait_s=time.monotonic() - pending.requested_s,
                pattern=str(pending.pattern),
                sent=sum(not one.unchanged for one in results),
                unchanged=sum(one.unchanged for one in results),
                failed=sum(one.error is not None for one in results),
                sad=sad,
                flip_rate=sad / sum(self._entries.values()),
                retained=total_retained((one.objective, one.retained) for one in new),
                optimal=all(one.status == "optimal" and one.gap == 0.0 for one in new),
            )
        )

    def state(self) -> dict[str, Any]:
        """Return reports and records as plain lists and dicts."""
        return {
            "layers": [asdict(report) for report in self.layers.values()],
            "refreshes": [asdict(record) for record in self.records],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        reports = [LayerReport(**{**fields, "shape": tuple(fields["shape"])}) for fields in state["layers"]]
        self.layers = {report.name: report for report in reports}
        self.records = [RefreshRecord(**fields) for fields in state["refreshes"]]

    def _report(self, name: str, result: LayerResult, step: int, sad: int) -> LayerReport:
        report = replace(self.layers[name], sad=sad, flip_rate=sad / self._entries[name])
        if not result.has_new_mask:
            return report
        return replace(report, asked_at=step, **{name: getattr(result, name) for name in PROVED})
