"""The answers, worked out from times that are known."""

import csv
import io
import json
from dataclasses import replace

import pytest

from masksmith.benchmark import (
    Case,
    CaseResult,
    Layer,
    Measurement,
    Report,
    Timing,
    bars,
    curve_bands,
    curves,
    machine_line,
    read_shapes,
)  # fmt: skip
from masksmith.benchmark.conclusions import crossing, family
from masksmith.benchmark.tables import duration_text

SMALL, MIDDLE, LARGE = Layer("small", 64, 64, 10), Layer("middle", 128, 64, 1), Layer("large", 256, 64, 1)


def timed(kernel, seconds, dense_s):
    timing = Timing(seconds, seconds * 0.9, seconds * 1.1, 5)
    return Measurement(kernel, "measured", eager=timing, speedup=dense_s / seconds, eager_speedup=dense_s / seconds)


def result(layer, pattern, density, times, purpose="asked", batch=32):
    case = Case(layer, batch, "float32", pattern, "forward", purpose, tuple(times))
    return CaseResult(case, density, [timed(name, s, times["dense"]) for name, s in times.items()])


def test_break_even_lies_where_the_line_between_two_points_crosses_dense():
    # Time is 0.2 + 2 * density, dense takes 1: both meet at 40 %.
    assert crossing({d: 0.2 + 2 * d for d in (0.5, 0.25, 0.1)}) == pytest.approx(0.4)
    assert crossing({0.5: 3.0, 0.25: 2.0}) is None
    assert crossing({0.5: 0.3, 0.25: 0.2}) is None


def test_bounds_where_nothing_crosses():
    slow = [result(SMALL, f"{d}%", d / 100, {"dense": 1.0, "csr": 2.0}) for d in (50, 10)]
    fast = [result(LARGE, f"{d}%", d / 100, {"dense": 1.0, "csr": 0.5}) for d in (50, 10)]
    rising = [result(MIDDLE, f"{d}%", d / 100, {"dense": 1.0, "csr": s}) for d, s in ((50, 0.5), (10, 2.0))]
    report = Report(slow + fast + rising)
    assert {one.layer.name: str(one) for one in report.break_evens} == {
        "small": "below 10.0%",
        "large": "above 50%",
        "middle": "below 10.0%",
    }
    assert '"below 2%": it does not beat dense at 2%, the lowest density measured' in report.tables()[-1].note


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9994, "999 ms"), (0.9997, "1 s"), (1.0, "1 s"), (9.996e-4, "1 ms"), (9.99e-4, "999 us"), (2e-7, "0.2 us")],
)
def test_durations_that_round_up_take_the_next_unit(seconds, text):
    assert duration_text(seconds) == text


def test_patterns_of_different_families_are_not_mixed_in_a_curve():
    points = [
        result(SMALL, "50%", 0.5, {"dense": 1.0, "csr": 2.0}),
        result(SMALL, "10%", 0.1, {"dense": 1.0, "csr": 0.5}),
        result(SMALL, "block 16x16 50%", 0.5, {"dense": 1.0, "csr": 0.4}),
        result(SMALL, "block 16x16 10%", 0.1, {"dense": 1.0, "csr": 0.2}),
        result(SMALL, "2:4", 0.5, {"dense": 1.0, "csr": 0.1}),
    ]
    report = Report(points)
    unstructured, blocks = report.break_evens
    assert (unstructured.family, unstructured.density) == ("unstructured", pytest.approx(0.1 + 0.4 / 3))
    assert (blocks.family, str(blocks)) == ("block 16x16", "above 50%")
    assert [row[:2] for row in report.tables()[-1].rows] == [
        ["csr (block 16x16)", SMALL.shape], ["csr (unstructured)", SMALL.shape]
    ]  # fmt: skip


def test_of_two_patterns_of_one_density_the_slower_one_counts():
    points = [
        result(SMALL, pattern, density, {"dense": 1.0, "csr": seconds})
        for pattern, density, seconds in (("4:8", 0.5, 2.0), ("2:4", 0.5, 0.5), ("1:8", 0.125, 0.5))
    ]
    for order in (points, points[::-1]):
        [found] = Report(order).break_evens
        assert (found.family, found.density) == ("N:M", pytest.approx(0.125 + 0.375 / 3))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("2.5%", "unstructured"), ("12:16", "N:M"), ("transposable <=8:16", "transposable <=N:M"),
        ("64:2:8", "V:N:M"), ("block 32x32 50% balance rows", "block 32x32 balance rows"),
        ("hybrid 128x128 2:4 75%", "hybrid 128x128 2:4"), ("channels out 50%", "channels out"),
    ],
)  # fmt: skip
def test_a_family_is_a_pattern_without_its_density(pattern, expected):
    assert family(pattern) == expected


def test_replays_of_a_graph_are_compared_with_replays_only():
    dense = replace(timed("dense", 4.0, 4.0), graph=Timing(1.0, 1.0, 1.0, 5))
    eager_only = timed("csr", 2.0, 4.0)
    both = replace(timed("nm-gather", 2.0, 4.0), graph=Timing(0.25, 0.25, 0.25, 5))
    case = Case(SMALL, 32, "float32", "2:4", "forward", "asked", ("dense", "csr", "nm-gather"))
    found = CaseResult(case, 0.5, [dense, eager_only, both])
    assert {measurement.kernel: gain.value for measurement, gain in found.gains} == {"csr": 2.0, "nm-gather": 4.0}
    without_graph = CaseResult(case, 0.5, [replace(dense, graph=None), both])
    assert [gain.value for _, gain in without_graph.gains] == [2.0]


def replayed(measurement, seconds):
    return replace(measurement, graph=Timing(seconds, seconds, seconds, 5))


def test_sums_over_layers_are_of_replays_or_of_eager_calls_and_never_of_both():
    dense = replayed(timed("dense", 50.0, 50.0), 10.0)
    eager_only, both = timed("csr", 40.0, 50.0), replayed(timed("csr", 40.0, 50.0), 8.0)
    case = Case(MIDDLE, 32, "float32", "2:4", "forward", "asked", ("dense", "csr"))
    other = replace(case, layer=LARGE)
    [estimate] = Report([CaseResult(case, 0.5, [dense, both])]).estimates
    assert (estimate.dense_s, estimate.best_s, estimate.by_kernel) == (10.0, 8.0, {"csr": 8.0})
    mixed = Report([CaseResult(case, 0.5, [dense, eager_only]), CaseResult(other, 0.5, [dense, both])])
    [estimate] = mixed.estimates
    assert (estimate.dense_s, estimate.best_s, estimate.by_kernel["csr"]) == pytest.approx((100.0, 80.0, 80.0))
    assert curves(mixed, 32) == {"csr": [(0.5, pytest.approx(1.25))]}


def test_a_curve_over_layers_does_not_weight_eager_calls_by_replays():
    dense = replayed(timed("dense", 50.0, 50.0), 10.0)
    long = replayed(timed("dense", 100.0, 100.0), 90.0)
    case = Case(MIDDLE, 32, "float32", "2:4", "forward", "asked", ("dense", "csr"))
    results = [
        CaseResult(case, 0.5, [dense, timed("csr", 25.0, 50.0)]),
        CaseResult(replace(case, layer=LARGE), 0.5, [long, timed("csr", 100.0, 100.0)]),
    ]
    assert curves(Report(results), 32) == {"csr": [(0.5, pytest.approx(150 / 125))]}


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({}, ""),
        ({"throttled": []}, ""),
        ({"throttled": ["power cap"]}, "power cap"),
        ({"missing": "no NVML"}, "unknown"),
    ],
)
def test_a_gpu_that_cannot_be_watched_is_not_called_unthrottled(conditions, text):
    results = [replace(result(SMALL, "50%", 0.5, {"dense": 1.0}), conditions=conditions)]
    [row] = csv.DictReader(io.StringIO(Report(results).to_csv()))
    assert row["throttled"] == text


def test_points_of_a_curve_lead_to_break_evens_and_to_nothing_else():
    points = [
        result(SMALL, "50%", 0.5, {"dense": 1.0, "csr": 2.0}, "curve"),
        result(SMALL, "10%", 0.1, {"dense": 1.0, "csr": 0.5}),
    ]
    report = Report(points)
    [found] = report.break_evens
    assert found.density == pytest.approx(0.1 + 0.4 / 3)
    assert [one.case.pattern for one in report.winners] == ["10%"]
    assert [one.pattern for one in report.estimates] == ["10%"]


def test_a_model_takes_the_best_kernel_for_each_shape_and_dense_where_none_beats_it():
    report = Report(
        [
            result(SMALL, "2:16", 0.125, {"dense": 1.0, "csr": 2.0, "nm-gather": 1.25}),
            result(LARGE, "2:16", 0.125, {"dense": 10.0, "csr": 4.0, "nm-gather": 5.0}),
        ]
    )
    [estimate] = report.estimates
    assert estimate.dense_s == 20.0
    assert estimate.best_s == pytest.approx(14.0)
    assert estimate.kernels == {"64x64": "dense", "256x64": "csr"}
    assert estimate.by_kernel == {"csr": pytest.approx(24.0), "nm-gather": pytest.approx(17.5)}
    assert report.conclusions() == [
        "2:16, batch 32, float32, forward: 1.43x faster than dense over all layers, with csr."
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (2.0, "nothing beats dense; the best sparse kernel, csr, reaches 0.50x."),
        (1.01, "nothing beats dense; csr is about as fast, at 0.99x."),
        (0.99, "within the noise of dense: 1.01x (0.83x to 1.23x) over all layers, with csr."),
        (0.85, "within the noise of dense: 1.18x (0.96x to 1.44x) over all layers, with csr."),
        (0.5, "2.00x faster than dense over all layers, with csr."),
    ],
)
def test_it_says_in_words_when_nothing_beats_dense(seconds, words):
    [line] = Report([result(SMALL, "2:4", 0.5, {"dense": 1.0, "csr": seconds})]).conclusions()
    assert line == f"2:4, batch 32, float32, forward: {words}"


def test_words_rows_and_documents_have_the_same_figures():
    dense = Measurement("dense", "measured", eager=Timing(277e-6, 250e-6, 300e-6, 15), speedup=1.0, weight_bytes=100)
    csr = Measurement("csr", "measured", eager=Timing(292e-6, 260e-6, 330e-6, 15), speedup=0.69, weight_bytes=50)
    case = Case(SMALL, 32, "float32", "2:4", "forward", "asked", ("dense", "csr"))
    report = Report([CaseResult(case, 0.5, [dense, csr])])
    [line] = report.conclusions()
    assert line.endswith("nothing beats dense; the best sparse kernel, csr, reaches 0.95x, within the noise.")
    layers = next(table for table in report.tables() if table.title == "Layer by layer")
    assert layers.rows[0][4:7] == ["277 us (250 us - 300 us)", "292 us (260 us - 330 us)", "0.95x, within noise"]
    kernels = next(table for table in report.tables() if table.title.startswith("Each kernel"))
    assert kernels.rows == [["2:4", "csr", "0.95x, within noise"]]
    [winner] = report.winners
    assert (winner.speedup, winner.low, winner.high) == pytest.approx((277 / 292, 250 / 330, 300 / 260))
    assert not winner.pays


def test_break_evens_carry_the_range_of_the_times():
    # Times of 0.2 + 2 * density against 1: 40 %; both off by 10 %: where their ratio is 9 / 11, and 11 / 9.
    points = [result(SMALL, f"{d}%", d / 100, {"dense": 1.0, "csr": 0.2 + d / 50}) for d in (60, 50, 40, 30, 20, 10)]
    [found] = Report(points).break_evens
    assert found.density == pytest.approx(0.4)
    assert found.low == pytest.approx((9 / 11 - 0.2) / 2)
    assert found.high == pytest.approx((11 / 9 - 0.2) / 2)
    assert str(found) == "40.0% (30.9% - 51.1%)"
    few = [result(SMALL, f"{d}%", d / 100, {"dense": 1.0, "csr": 0.2 + d / 50}) for d in (41, 39)]
    assert str(Report(few).break_evens[0]) == "40.0% (39.0% - 41.0%)", "no further than what was measured"


def test_the_range_of_a_break_even_contains_it_where_times_rise_and_fall():
    times = ((50, 0.95), (25, 0.7), (10, 1.1), (5, 0.5))
    [found] = Report([result(SMALL, f"{d}%", d / 100, {"dense": 1.0, "csr": s}) for d, s in times]).break_evens
    assert 0.05 < found.density < 0.1
    assert found.low <= found.density <= found.high


def test_a_pattern_that_no_kernel_takes_is_said_to_have_none():
    [line] = Report([result(SMALL, "2:4", 0.5, {"dense": 1.0, "dense-zeros": 0.9})]).conclusions()
    assert line.endswith("no sparse kernel was measured for this pattern; use dense.")


def test_reports_survive_json_and_say_the_same():
    failed = CaseResult(Case(SMALL, 1, "float32", "2:4", "forward"), 0.5, [], error="OutOfMemoryError: too large")
    report = Report([result(SMALL, "2:4", 0.5, {"dense": 1.0, "csr": 2.0}), failed], {"seed": 3})
    again = Report.read(json.loads(report.to_json()))
    assert again == report
    assert again.document() == report.document()
    assert again.failures == ["64x64, 2:4, batch 1, float32, forward: OutOfMemoryError: too large"]
    with pytest.raises(ValueError, match="no benchmark report"):
        Report.read({"format": 99})


def test_csv_has_a_line_for_every_kernel_and_for_every_case_that_failed():
    failed = CaseResult(Case(LARGE, 1, "float32", "2:4", "forward"), 0.5, [], error="broke")
    report = Report([result(SMALL, "2:4", 0.5, {"dense": 1.0, "csr": 2.0}), failed])
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert [(row["layer"], row["kernel"], row["outcome"]) for row in rows] == [
        ("small", "dense", "measured"),
        ("small", "csr", "measured"),
        ("large", "", "failed"),
    ]
    assert float(rows[1]["speedup"]) == 0.5
    assert rows[2]["reason"] == "broke"


def test_plots_keep_dtypes_and_directions_apart():
    def measured(dtype, direction, csr_s, pattern="10%", density=0.1):
        one = result(SMALL, pattern, density, {"dense": 1.0, "csr": csr_s})
        return replace(one, case=replace(one.case, dtype=dtype, direction=direction))

    forward = [measured("float32", "forward", 0.5), measured("float32", "forward", 2.0, "50%", 0.5)]
    report = Report([*forward, measured("float32", "backward", 0.25), measured("bfloat16", "forward", 1.0)])
    assert curves(report, 32) == {
        "csr, bfloat16, forward": [(0.1, 1.0)],
        "csr, float32, backward": [(0.1, 4.0)],
        "csr, float32, forward": [(0.5, 0.5), (0.1, 2.0)],
    }
    assert curve_bands(report, 32).keys() == curves(report, 32).keys()
    assert bars(report, 32)["64x64"] == {
        "10%, float32, forward": 2.0,
        "50%, float32, forward": 0.5,
        "10%, float32, backward": 4.0,
        "10%, bfloat16, forward": 1.0,
    }
    assert list(curves(Report(forward), 32)) == ["csr"]
    assert list(bars(Report(forward), 32)["64x64"]) == ["10%", "50%"]


def test_bands_have_the_range_of_each_point_where_patterns_share_a_density():
    def with_csr(pattern, p20_s, median_s, p80_s):
        dense, csr = Timing(1.0, 1.0, 1.0, 5), Timing(median_s, p20_s, p80_s, 5)
        case = Case(SMALL, 32, "float32", pattern, "forward", "asked", ("dense", "csr"))
        return CaseResult(
            case, 0.5, [Measurement("dense", "measured", eager=dense), Measurement("csr", "measured", eager=csr)]
        )

    # The steady kernel has the smaller speed-up, the larger low end and the smaller high end.
    report = Report([with_csr("2:4", 0.5, 0.5, 0.5), with_csr("4:8", 0.125, 0.25, 1.0)])
    assert curves(report, 32) == {"csr": [(0.5, 4.0), (0.5, 2.0)]}
    assert curve_bands(report, 32) == {"csr": [(0.5, 1.0, 8.0), (0.5, 2.0, 2.0)]}


def test_plots_draw_a_curve_for_each_family_of_patterns():
    measured = {"50%": (0.5, 2.0), "25%": (0.25, 1.0), "block 8x8 50%": (0.5, 0.5), "block 8x8 25%": (0.25, 0.25)}
    report = Report(
        [
            result(SMALL, pattern, density, {"dense": 1.0, "csr": csr_s})
            for pattern, (density, csr_s) in measured.items()
        ]
        + [result(SMALL, "2:4", 0.5, {"dense": 1.0, "nm-gather": 0.5})]
    )
    assert curves(report, 32) == {
        "csr (block 8x8)": [(0.5, 2.0), (0.25, 4.0)],
        "csr (unstructured)": [(0.5, 0.5), (0.25, 1.0)],
        "nm-gather": [(0.5, 2.0)],
    }
    assert curve_bands(report, 32).keys() == curves(report, 32).keys()


def test_a_machine_without_measured_rates_has_none_in_its_line():
    machine = {"processor": "EPYC", "capability": "avx512", "numpy": "2.4"}
    plain = replace(result(SMALL, "10%", 0.1, {"dense": 1.0, "csr": 0.5}), machine=machine)
    assert machine_line(machine, Report([plain])) == "Measured on EPYC, avx512. numpy 2.4."
    rates = {"copy_bytes_per_s": 2e10, "matrix_flops_per_s": 3e11}
    measured = Report([replace(plain, machine=machine | rates)])
    expected = "Measured on EPYC, avx512; copies 20 GB/s, multiplies at 300 GFLOP/s in float32. numpy 2.4."
    assert machine_line(machine, measured) == expected


def test_each_machine_has_its_own_rates_in_its_line():
    def measured_on(processor, dtype, copied, flops):
        one = result(SMALL, "10%", 0.1, {"dense": 1.0, "csr": 0.5})
        machine = {"processor": processor, "capability": "avx512", "numpy": "2.4"}
        rates = {"copy_bytes_per_s": copied, "matrix_flops_per_s": flops}
        return replace(one, case=replace(one.case, dtype=dtype), machine=machine | rates)

    report = Report(
        [
            measured_on("EPYC", "float32", 2e10, 3e11),
            measured_on("EPYC", "float64", 1e10, 1e11),
            measured_on("Xeon", "float32", 5e9, 7e10),
        ]
    )
    first, second = (machine_line(machine, report) for machine in report.machines)
    assert "EPYC, avx512; copies 20 GB/s, multiplies at 300 GFLOP/s in float32, 100 GFLOP/s in float64." in first
    assert "Xeon, avx512; copies 5 GB/s, multiplies at 70 GFLOP/s in float32." in second


def test_layers_of_one_shape_that_are_measured_apart_are_reported_apart():
    query, value = Layer("q", 64, 64, 2), Layer("v", 64, 64, 3)
    results = [
        result(layer, f"{percent}%", percent / 100, {"dense": 1.0, "csr": seconds * percent / 50})
        for layer, seconds in ((query, 0.5), (value, 4.0), (MIDDLE, 0.5))
        for percent in (50, 10)
    ]
    report = Report(results)
    names = {"64x64 (q, x2)": "csr", "64x64 (v, x3)": "dense", "128x64": "csr"}
    assert next(each for each in report.estimates if each.pattern == "50%").kernels == names
    tables = {table.title: table for table in report.tables()}
    assert {row[1] for row in tables["Break-even density"].rows} == set(names)
    layers = [row[0] for row in tables["Layer by layer"].rows]
    assert set(layers) == {"64x64 (q, x2)", "64x64 (v, x3)", "128x64 (x1)"}
    assert set(bars(report, 32)) == set(names)


def test_shapes_are_written_in_one_way():
    assert read_shapes(["0064X64 * 2"]) == [Layer("64x64", 64, 64, 2)]
    for text in ("\u0663x\u0664", "1234567x1", "0x4", "4x", "4x4*0"):
        with pytest.raises(ValueError, match="is not a shape"):
            read_shapes([text])
