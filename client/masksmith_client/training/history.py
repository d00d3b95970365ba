"""What refreshes did: known of each layer, and recorded of each refresh."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from masksmith_wire.totals import total_retained

from .refresh_worker.messages import Answer, Found
from .refresher import Pending
from .report import LayerReport, RefreshRecord


class History:
    """The last report of every layer, and the records of all refreshes.

    Attributes:
        layers: By name; densities are filled in by whoever asks.
        records: The oldest first.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.layers = {name: LayerReport(name, shape, 1.0) for name, shape in shapes.items()}
        self.records: list[RefreshRecord] = []
        self._entries = {name: torch.Size(shape).numel() for name, shape in shapes.items()}

    def add(self, answer: Answer, pending: Pending, step: int, dense: Iterable[str]) -> None:
        """Note an answer that is applied after optimizer step `step`; masks of layers that were dense flip nothing."""
        flips = {name: 0 if name in dense else one.added + one.dropped for name, one in answer.layers.items()}
        for name, one in answer.layers.items():
            self.layers[name] = self._known(name, one, pending.step, flips[name])
        found = answer.layers.values()
        new = [one for one in found if one.error is None and not one.unchanged]
        sad = sum(flips.values())
        self.records.append(
            RefreshRecord(
                asked_at=pending.step,
                applied_at=step,
                wait_s=time.monotonic() - pending.asked_s,
                pattern=str(pending.pattern),
                sent=sum(not one.unchanged for one in found),
                unchanged=sum(one.unchanged for one in found),
                failed=sum(one.error is not None for one in found),
                sad=sad,
                flip_rate=sad / sum(self._entries.values()),
                retained=total_retained((one.objective, one.retained) for one in new),
                optimal=all(one.status == "optimal" and one.gap == 0.0 for one in new),
            )
        )

    def state(self) -> dict[str, Any]:
        """Give everything as plain lists and dicts."""
        return {
            "layers": [asdict(known) for known in self.layers.values()],
            "refreshes": [asdict(record) for record in self.records],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        known = [LayerReport(**{**told, "shape": tuple(told["shape"])}) for told in state["layers"]]
        self.layers = {report.name: report for report in known}
        self.records = [RefreshRecord(**told) for told in state["refreshes"]]

    def _known(self, name: str, found: Found, step: int, sad: int) -> LayerReport:
        known = replace(self.layers[name], sad=sad, flip_rate=sad / self._entries[name])
        if found.error is not None or found.unchanged:
            return known
        return replace(
            known,
            asked_at=step,
            status=found.status,
            gap=found.gap,
            retained=found.retained,
            objective=found.objective,
            upper_bound=found.upper_bound,
        )
