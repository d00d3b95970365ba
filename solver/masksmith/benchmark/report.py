"""A whole benchmark: its results, and the answers they give, as JSON, CSV and words. Standard library only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .conclusions import NOISE, BreakEven, Estimate, Winner, break_evens, estimates, winners
from .results import CaseResult, Timing
from .tables import Table, page, tables

FORMAT = 1
COLUMNS = (
    "layer", "rows", "cols", "count", "batch", "dtype", "direction", "pattern", "density", "purpose", "kernel",
    "outcome", "reason", "speedup", "eager_speedup", "median_s", "p20_s", "p80_s", "graph_median_s", "graph_p20_s",
    "graph_p80_s", "rounds", "pack_s", "tune_s", "weight_bytes", "roofline", "error", "throttled", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        results: One a case.
        settings: Seed, rounds, threads and what else was asked.
    """

    results: Sequence[CaseResult]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def winners(self) -> list[Winner]:
        """The fastest sparse kernel of every case that was asked for."""
        return winners(self.results)

    @cached_property
    def break_evens(self) -> list[BreakEven]:
        """Where each kernel starts to beat dense, by layer and batch."""
        return break_evens(self.results)

    @cached_property
    def estimates(self) -> list[Estimate]:
        """What all layers together take, by pattern and batch."""
        return estimates(self.results)

    @property
    def machines(self) -> list[dict[str, Any]]:
        """Every machine that measured some of it, once."""
        found: list[dict[str, Any]] = []
        rates = ("copy_bytes_per_s", "matrix_flops_per_s")
        for result in self.results:
            machine = {key: value for key, value in result.machine.items() if key not in rates}
            if machine and machine not in found:
                found.append(machine)
        return found

    @property
    def failures(self) -> list[str]:
        """One line for every case or kernel that failed."""
        lines = [f"{result.case}: {result.error}" for result in self.results if result.error]
        lines += [
            f"{one.kernel} at {result.case}: {one.reason}"
            for result in self.results
            for one in result.measurements
            if one.outcome == "failed"
        ]
        return lines

    @property
    def skipped(self) -> dict[str, str]:
        """Kernels that cannot run here at all, and why."""
        return {
            one.kernel: one.reason or ""
            for result in self.results
            for one in result.measurements
            if one.outcome == "skipped"
        }

    def conclusions(self) -> list[str]:
        """Say in words what it comes to: a sentence for every pattern and batch."""
        return [_conclusion(estimate) for estimate in self.estimates]

    def document(self) -> dict[str, Any]:
        """Give all of it as JSON, the answers included."""
        return {
            "format": FORMAT,
            "settings": dict(self.settings),
            "machines": self.machines,
            "conclusions": self.conclusions(),
            "winners": [asdict(one) | {"pays": one.pays} for one in self.winners],
            "break_evens": [asdict(one) | {"text": str(one)} for one in self.break_evens],
            "estimates": [asdict(one) | {"speedup": one.speedup} for one in self.estimates],
            "failures": self.failures,
            "skipped": self.skipped,
            "results": [result.document() for result in self.results],
        }

    def to_json(self) -> str:
        """Give the document as text."""
        return json.dumps(self.document(), indent=1) + "\n"

    def to_csv(self) -> str:
        """Give a line for every kernel of every case."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for result in self.results:
            writer.writerows(_rows(result))
        return text.getvalue()

    def tables(self) -> list[Table]:
        """Give the answers as tables: the whole model, each kernel, each layer, where kernels break even."""
        return tables(self)

    def to_markdown(self, title: str = "What a mask buys") -> str:
        """Give a page for people."""
        return page(self, title)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Report:
        """Read what `document` gave; the answers are worked out anew.

        Raises:
            ValueError: If it is no benchmark's document.
        """
        if document.get("format") != FORMAT:
            raise ValueError(f"no benchmark report of format {FORMAT}")
        return cls([CaseResult.read(one) for one in document["results"]], document["settings"])


def _conclusion(estimate: Estimate) -> str:
    where = f"{estimate.pattern}, batch {estimate.batch}, {estimate.dtype}, {estimate.direction}"
    if not estimate.by_kernel:
        return f"{where}: no sparse kernel takes this pattern here; stay with dense."
    if estimate.speedup > 1.0 + NOISE:
        sparse = sorted({name for name in estimate.kernels.values() if name != "dense"})
        return f"{where}: {estimate.speedup:.2f}x faster than dense over all layers, with {', '.join(sparse)}."
    name = min(estimate.by_kernel, key=lambda kernel: estimate.by_kernel[kernel])
    ratio = estimate.dense_s / estimate.by_kernel[name]
    if ratio > 1.0 - NOISE:
        return f"{where}: nothing beats dense by more than noise; {name} is as fast, at {ratio:.2f}x."
    return f"{where}: nothing beats dense; the best sparse kernel, {name}, reaches {ratio:.2f}x."


def _rows(result: CaseResult) -> list[list[Any]]:
    case = result.case
    head = [
        case.layer.name, case.layer.rows, case.layer.cols, case.layer.count, case.batch, case.dtype, case.direction,
        case.pattern, result.density, case.purpose,
    ]  # fmt: skip
    throttled = " ".join(result.conditions.get("throttled", ()))
    rows = [
        [
            *head, one.kernel, one.outcome, one.reason, one.speedup, one.eager_speedup, *_times(one.eager),
            *_times(one.graph), one.timing and one.timing.rounds, one.pack_s, one.tune_s, one.weight_bytes,
            one.roofline, one.error, throttled, "; ".join(f"{key}: {value}" for key, value in one.notes.items()),
        ]
        for one in result.measurements
    ]  # fmt: skip
    return rows or [[*head, "", "failed", result.error, *[None] * (len(COLUMNS) - len(head) - 3)]]


def _times(timing: Timing | None) -> list[float | None]:
    return [None] * 3 if timing is None else [timing.median_s, timing.p20_s, timing.p80_s]
