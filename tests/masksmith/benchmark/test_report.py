"""Reports as text: what a stranger named a layer does nothing where the report is opened."""

import csv
import io
import re

import pytest

from masksmith.benchmark import Case, CaseResult, Layer, Measurement, Report, Timing

NAMES = [
    "=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "w\x1b]0;owned\x07", "a\nb", "a\rb",
    "\u202egnp", "<script>x</script>", "a|b", "a\\|b", "a\\<b>",
]  # fmt: skip


def report(name):
    case = Case(Layer(name, 64, 64, 1), 32, "float32", "2:4", "forward", "asked", ("dense", "csr"))
    times = [("dense", 1.0), ("csr", 0.5)]
    timings = [Measurement(kernel, "measured", eager=Timing(s, s, s, 5), speedup=1 / s) for kernel, s in times]
    failure = CaseResult(case, 0.5, [Measurement("nm", "failed", error=name)])
    return Report([CaseResult(case, 0.5, timings), failure])


@pytest.mark.parametrize("name", NAMES)
def test_names_of_strangers_are_harmless_in_csv_and_markdown(name):
    text = report(name).to_csv()
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == len(text.splitlines()) == 4
    for row in rows:
        assert all(cell.isprintable() and not cell.startswith(("=", "+", "-", "@")) for cell in row)
    page = report(name).to_markdown(name)
    assert all(line.isprintable() for line in page.split("\n"))
    assert not re.search("<(?:script|b)>", re.sub(r"\\.", "", page))
    for block in page.split("\n\n"):
        # A cell that ended in the middle of a name would give its row another number of cells.
        rows = [line for line in block.split("\n") if line.startswith("|")]
        assert len({re.sub(r"\\.", "", line).count("|") for line in rows}) <= 1


def test_other_names_and_numbers_stay():
    [_, row, *_] = csv.DictReader(io.StringIO(report("layers.0.mlp").to_csv()))
    assert (row["layer"], row["pattern"], float(row["speedup"])) == ("layers.0.mlp", "2:4", 2.0)
