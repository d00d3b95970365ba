"""A whole benchmark as JSON, CSV and Markdown. Standard library only."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .answers import Answers
from .results import CaseResult, Measurement, Timing
from .tables import Table, one_line, page, tables

FORMAT = 1
"""Version of the format of `Report.document`."""
COLUMNS = (
    "layer", "rows", "cols", "count", "batch", "dtype", "direction", "pattern", "density", "purpose", "kernel",
    "outcome", "reason", "speedup", "eager_speedup", "median_s", "p20_s", "p80_s", "graph_median_s", "graph_p20_s",
    "graph_p80_s", "rounds", "pack_s", "tune_s", "weight_bytes", "roofline", "error", "throttled", "notes",
)  # fmt: skip
"""Columns of `Report.to_csv`."""


@dataclass(frozen=True)
class Report(Answers):
    """The results of a benchmark, with methods that write them, and conclusions from them, as JSON, CSV and Markdown.

    Attributes:
        results: One per case.
        settings: Seed, rounds, threads and other settings.
    """

    def document(self) -> dict[str, Any]:
        """Return the report as a dict for JSON, conclusions included."""
        return {
            "format": FORMAT,
            "settings": dict(self.settings),
            "machines": self.machines,
            "conclusions": self.conclusions(),
            "winners": [asdict(winner) | {"pays": winner.pays} for winner in self.winners],
            "break_evens": [asdict(break_even) | {"text": str(break_even)} for break_even in self.break_evens],
            "estimates": [asdict(estimate) | {"speedup": estimate.speedup} for estimate in self.estimates],
            "failures": self.failures,
            "skipped": self.skipped,
            "results": [result.document() for result in self.results],
        }

    def to_json(self) -> str:
        """Return the document as JSON text."""
        return json.dumps(self.document(), indent=1) + "\n"

    def to_csv(self) -> str:
        """Return CSV text with one line for every kernel of every case, and for every case that failed as a whole."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for result in self.results:
            writer.writerows([_cell(value) for value in row] for row in _rows(result))
        return text.getvalue()

    def tables(self) -> list[Table]:
        """Return tables of the whole model, kernels, layers, break-even densities; a table without rows is left out."""
        return tables(self)

    def to_markdown(self, title: str = "Speed-up of masks") -> str:
        """Return the report as a Markdown page."""
        return page(self, title)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Report:
        """Build a report from the result of `document`; conclusions are computed again.

        Raises:
            ValueError: If the document has another format.
        """
        if document.get("format") != FORMAT:
            raise ValueError(f"the document is no benchmark report of format {FORMAT}")
        return cls([CaseResult.read(result) for result in document["results"]], document["settings"])


def _rows(result: CaseResult) -> list[list[Any]]:
    case = result.case
    head = [
        case.layer.name, case.layer.rows, case.layer.cols, case.layer.count, case.batch, case.dtype, case.direction,
        case.pattern, result.density, case.purpose,
    ]  # fmt: skip
    # A GPU whose state could not be read may have been throttled.
    throttled = " ".join(result.conditions.get("throttled", ["unknown"] if result.conditions else []))
    if result.measurements:
        return [[*head, *_measured_values(measurement, throttled)] for measurement in result.measurements]
    failure = ["", "failed", result.error]  # kernel, outcome and reason of a case that failed as a whole
    return [[*head, *failure, *[None] * (len(COLUMNS) - len(head) - len(failure))]]


def _measured_values(measurement: Measurement, throttled: str) -> list[Any]:
    """Return the values in the columns from `kernel` on."""
    rounds = None if measurement.timing is None else measurement.timing.rounds
    notes = "; ".join(f"{key}: {value}" for key, value in measurement.notes.items())
    return [
        measurement.kernel, measurement.outcome, measurement.reason, measurement.speedup, measurement.eager_speedup,
        *_times(measurement.eager), *_times(measurement.graph), rounds, measurement.pack_s, measurement.tune_s,
        measurement.weight_bytes, measurement.roofline, measurement.error, throttled, notes,
    ]  # fmt: skip


def _cell(value: Any) -> Any:
    """Return a value for a cell; in a text, formulas and characters that are not printable are escaped."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _times(timing: Timing | None) -> list[float | None]:
    return [None] * 3 if timing is None else [timing.median_s, timing.p20_s, timing.p80_s]
