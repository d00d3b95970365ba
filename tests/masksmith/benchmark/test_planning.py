"""What is refused before anything runs, by name; and what is planned."""

import pytest

from masksmith.benchmark import (
    BenchmarkError,
    Case,
    Declaration,
    Layer,
    Request,
    own_kernels,
    plan,
    planning,
    read_shapes,
)
from masksmith.benchmark.cases import group
from masksmith.benchmark.declaration import block_size, row_budget
from masksmith.patterns import parse

OWN = {name: kernel.declaration for name, kernel in own_kernels().items()}
LAYER = Layer("a", 64, 128)


def ask(**given):
    options = {"layers": [LAYER], "patterns": ["2:4"], "batches": [8]} | given
    return plan(Request(**options), OWN)


def refusal(**given):
    with pytest.raises(BenchmarkError) as caught:
        ask(**given)
    return caught.value


def test_an_unknown_kernel_is_refused_with_the_names_there_are():
    error = refusal(kernels=["magic"])
    assert error.fault == "unknown_kernel"
    assert "'magic'" in str(error)
    assert "nm-gather" in str(error)


@pytest.mark.parametrize(
    ("kernel", "given", "words"),
    [
        ("csr", {"dtypes": ["bfloat16"]}, "it has no bfloat16 on cpu, only float32, float64"),
        ("semi-structured-cusparselt", {}, "it runs on cuda, not on cpu"),
        ("bsr", {}, "2:4 has no blocks"),
        ("bsr", {"patterns": ["hybrid 16x16 2:4 50%"]}, "hybrid 16x16 2:4 50% keeps entries of every block"),
        ("nm-gather", {"patterns": ["hybrid 16x16 2:4 50%"]}, "50% does not imply n:m along the rows of W"),
        ("nm-gather", {"patterns": ["10%"]}, "10% does not imply n:m along the rows of W"),
        ("nm-gather", {"directions": ["backward"]}, "2:4 does not imply n:m along the rows of W^T"),
        ("bsr", {"patterns": ["block 16x32 50%"]}, "blocks of 16x32 are not square"),
        (
            "semi-structured-cutlass",
            {"device": "cuda", "dtypes": ["float16"], "layers": [Layer("b", 48, 128)]},
            "48 rows of W (float16) are not a multiple of 32",
        ),
        (
            "semi-structured-cusparselt",
            {"device": "cuda:1", "dtypes": ["float16"], "patterns": ["8:16"]},
            "8:16 does not imply 2:4 along the rows of W",
        ),
        (
            "bsr",
            {"device": "cuda", "dtypes": ["float16"], "patterns": ["block 8x8 50%"]},
            "a block side of 8: sides must be powers of two and at least 16",
        ),
    ],
)  # fmt: skip
def test_a_kernel_that_cannot_is_refused_by_name(kernel, given, words):
    error = refusal(kernels=[kernel], **given)
    assert error.fault == "kernel_refused"
    assert f"kernel {kernel!r}" in str(error)
    assert words in str(error)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"layers": []}, "layers: the list is empty"),
        ({"patterns": []}, "patterns: the list is empty"),
        ({"patterns": ["3:2"]}, "n counts the kept entries"),
        ({"patterns": ["2:5"]}, "layer 'a' (64x128), pattern '2:5'"),
        ({"dtypes": ["int8"]}, "dtype 'int8'"),
        ({"batches": [0]}, "batch 0"),
        ({"directions": ["up"]}, "direction 'up'"),
        ({"batches": list(range(1, 21_000))}, "are more than 20000"),
    ],
)
def test_a_request_without_sense_is_refused(given, words):
    error = refusal(**given)
    assert error.fault == "invalid_benchmark"
    assert words in str(error)


def test_a_named_kernel_skips_patterns_that_it_does_not_take_as_long_as_it_takes_one():
    cases = ask(kernels=["bsr", "nm-gather"], patterns=["2:4", "block 16x16 25%"], curves=False)
    assert [case.kernels for case in cases] == [("dense", "nm-gather"), ("dense", "bsr")]


def test_without_names_every_kernel_that_fits_is_measured_the_baselines_first():
    [case] = ask(curves=False)
    assert case.kernels == ("dense", "dense-zeros", "csr", "nm-gather", "scipy-csr")


def test_values_that_are_given_twice_are_planned_once():
    options = {"patterns": ["50%", "2:4", " 50 %"], "batches": [8, 8], "dtypes": ["float32"] * 2, "curves": False}
    cases = ask(**options, directions=["forward", "forward"])
    assert [(case.pattern, case.batch, case.dtype, case.direction) for case in cases] == [
        ("50%", 8, "float32", "forward"), ("2:4", 8, "float32", "forward"),
    ]  # fmt: skip


def test_equal_layers_are_measured_each():
    assert len(ask(layers=[LAYER, LAYER], curves=False)) == 2


def test_transposable_masks_serve_both_directions():
    cases = ask(patterns=["transposable 8:16"], directions=["forward", "backward"], kernels=["nm-gather"], curves=False)
    assert [case.matrix for case in cases] == [(64, 128), (128, 64)]
    assert all("nm-gather" in case.kernels for case in cases)


def test_curves_add_points_but_none_twice():
    asked = ask(patterns=["2:16", "10%"], curves=True)
    points = [(case.pattern, case.kernels) for case in asked if case.purpose == "curve"]
    assert ("1:16", ("dense", "nm-gather")) in points
    assert ("25%", ("dense", "csr")) in points
    assert ("2:16", ("dense", "nm-gather")) not in points
    assert ("10%", ("dense", "csr")) not in points
    assert len(points) == len(set(points))


@pytest.mark.parametrize(
    ("pattern", "forward", "backward"),
    [
        ("2:4", (2, 4), None),
        ("transposable 8:16 x 4:8", (8, 16), (4, 8)),
        ("double 2:4", (2, 4), (2, 4)),
        ("64:2:8", (2, 8), None),
        ("block 16x16 50% nested 2:4", (2, 4), None),
        ("10%", None, None),
    ],
)
def test_what_patterns_promise_along_rows(pattern, forward, backward):
    assert row_budget(parse(pattern), "forward") == forward
    assert row_budget(parse(pattern), "backward") == backward


def test_blocks_turn_with_the_matrix():
    assert block_size(parse("block 16x32 50%"), "backward") == (32, 16)


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "1:2", "2:16", "2:8"])
def test_sparser_groups_run_on_two_of_four_hardware(pattern):
    kernel = OWN["semi-structured-cusparselt"]
    case = Case(LAYER, 8, "float16", pattern, "forward")
    assert kernel.refusal(case, "cuda") is None


def test_declarations_survive_json():
    for kernel in OWN.values():
        assert Declaration.read(kernel.document()) == kernel


def test_shapes_are_read_and_grouped():
    assert read_shapes(["384x1536*6"]) == [Layer("384x1536", 384, 1536, 6)]
    with pytest.raises(ValueError, match="is not a shape"):
        read_shapes(["384"])
    assert group([("a", 4, 8), ("b", 4, 8), ("c", 8, 4)]) == [Layer("a", 4, 8, 2), Layer("c", 8, 4, 1)]


def test_a_request_with_too_many_points_of_curves_is_refused_without_building_them(monkeypatch):
    parsed = []

    def counting_parse(text, **options):
        parsed.append(text)
        return parse(text, **options)

    monkeypatch.setattr(planning, "parse", counting_parse)
    monkeypatch.setattr(planning, "MAX_CASES", 2_000)
    layers = [Layer(str(number), 64, 64 * number) for number in range(1, 21)]
    error = refusal(layers=layers, patterns=["25%"], batches=list(range(1, 101)))
    assert error.fault == "invalid_benchmark"
    assert "cases and points of curves are more than 2000" in str(error)
    # Once for each layer and pattern, and not again for each batch.
    curve_patterns = {pattern for declaration in OWN.values() for pattern in declaration.curve}
    assert len(parsed) <= len(layers) * (1 + len(curve_patterns))
