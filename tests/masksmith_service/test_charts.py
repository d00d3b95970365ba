import re
from dataclasses import replace

import pytest
from support.leases import take

from masksmith.benchmark import Case, CaseResult, Layer, Measurement, Report, Timing
from masksmith_service.pages import charts
from masksmith_wire.benchmarks import CaseReport

HTML = {"Accept": "text/html"}


def result(pattern, density, batch=1, purpose="asked", rows=64, **gains):
    case = Case(Layer("w", rows, 128), batch, "float32", pattern, "forward", purpose, ("dense", *gains))
    dense = Measurement("dense", "measured", eager=Timing(1.0, 1.0, 1.0, 3), speedup=1.0)
    others = [
        Measurement(name, "measured", eager=Timing(1 / gain, 1 / gain, 1 / gain, 3), speedup=gain)
        for name, gain in gains.items()
    ]
    return CaseResult(case, density, [dense, *others])


def test_a_curve_rises_with_its_gains():
    report = Report([result("50%", 0.5, fast=0.5), result("25%", 0.25, fast=1.0), result("10%", 0.1, fast=4.0)])
    curve, bars = charts.compute_charts(report)
    [series] = curve.series
    assert series.name == "fast"
    by_place = sorted(series.marks, key=lambda mark: mark.x)
    assert [mark.label for mark in by_place] == [
        "fast: 0.50x, 50.0 % dropped", "fast: 1.00x, 75.0 % dropped", "fast: 4.00x, 90.0 % dropped",
    ]  # fmt: skip
    heights = [mark.y for mark in by_place]
    assert heights[1] == pytest.approx(curve.baseline)
    # Twice as fast is as far up from dense as twice as slow is down; four times, twice as far.
    assert heights[0] - curve.baseline == pytest.approx((curve.baseline - heights[2]) / 2)
    assert {label for label, _ in curve.y_labels} == {"0.5x", "1x", "2x", "4x"}
    assert bars.is_bars
    assert [series.name for series in bars.series] == ["50%", "25%", "10%"]


def test_a_curve_has_the_band_of_its_times():
    spread = result("50%", 0.5, fast=2.0), result("25%", 0.25, fast=4.0)
    wide = [replace(each, measurements=[replace(one, eager=replace(one.eager, p20_s=one.eager.median_s / 2))
            for one in each.measurements]) for each in spread]  # fmt: skip
    curve = charts.compute_charts(Report(wide))[0]
    places = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", curve.series[0].band)]
    line = [mark.y for mark in curve.series[0].marks]
    # Twice as fast at best, and half as fast at worst, is as far from the line.
    assert len(places) == 4
    assert places[0] < line[0] < places[3]
    assert line[0] - places[0] == pytest.approx(places[3] - line[0], abs=0.11)


def test_bars_begin_at_the_dense_baseline():
    report = Report(
        [result("2:4", 0.5, fast=2.0), result("1:4", 0.25, fast=0.5), result("2:4", 0.5, rows=32, fast=8.0)]
    )
    [chart] = charts.compute_charts(report)
    above, below = chart.series[0].marks[0], chart.series[1].marks[0]
    assert above.y + above.height == pytest.approx(chart.baseline)
    assert below.y == pytest.approx(chart.baseline)
    assert above.height == pytest.approx(below.height)
    assert chart.series[0].marks[1].height == pytest.approx(3 * above.height)
    assert [label for label, _ in chart.x_labels] == ["64x128", "32x128"]
    for mark in (mark for series in chart.series for mark in series.marks):
        assert chart.left <= mark.x
        assert mark.x + mark.width <= chart.right + 1e-9


@pytest.mark.parametrize("gain", [1e-6, 0.011, 0.99, 1.0, 1.01, 1e6])
def test_marks_of_any_gain_are_inside_the_chart(gain):
    [chart] = charts.compute_charts(Report([result("2:4", 0.5, fast=gain)]))
    [mark] = chart.series[0].marks
    assert charts.TOP - 1e-6 <= mark.y <= chart.bottom + 1e-6
    assert 2 <= len(chart.y_labels) <= 8
    assert max(len(label) for label, _ in chart.y_labels) <= 8, "longer labels are cut off at the left edge"


def test_nothing_measured_draws_nothing():
    assert charts.compute_charts(Report([])) == []
    failed = CaseResult(result("2:4", 0.5).case, 0.5, [], error="nothing was measured")
    assert charts.compute_charts(Report([failed])) == []


def test_the_page_draws_what_workers_measured(client, records):
    asked = {
        "kind": "benchmark", "layers": [{"name": "w", "rows": 64, "cols": 128}], "patterns": ["2:4", "1:4"],
        "batches": [1], "curves": False,
    }  # fmt: skip
    job = client.post("/v1/jobs", json=asked).json()["id"]
    page = client.get(f"/jobs/{job}", headers=HTML).text
    assert '<svg class="chart"' not in page
    assert "0 of 2 cases" in page
    assert f'action="../jobs/{job}/cancel"' in page
    for index, planned in records.cases(job).items():
        case = CaseResult.read_case(planned.case)
        gain = {"2:4": 0.8, "1:4": 1.6}[case.pattern]
        lease = take(records, job, index, lease_s=60, attempts=3)
        found = result(case.pattern, case.rule.density, **{"nm-gather": gain})
        assert records.complete(lease, CaseReport(result=found.document()))
    page = client.get(f"/jobs/{job}", headers=HTML).text
    assert page.count('<svg class="chart"') == 2
    assert "1:4: 1.60x" in page or "64x128, 1:4: 1.60x" in page
    assert re.search(r"1\.60x faster than dense over all layers, with nm-gather", page)
    assert f"/v1/jobs/{job}/benchmark?format=csv" in page
    assert "style=" not in page
    for path in (f"/v1/jobs/{job}/window?tensor=w", f"/v1/jobs/{job}/profile?tensor=w"):
        assert client.get(path).json()["code"] == "result_not_found"
    for path in (f"/jobs/{job}/layer?tensor=w", f"/compare?a={job}&b={job}"):
        assert client.get(path, headers=HTML).status_code == 404
