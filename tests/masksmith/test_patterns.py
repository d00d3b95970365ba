"""Patterns: grammar, geometry, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from numbers import Real

import numpy as np
import pytest
from hypothesis import given, strategies as st

from masksmith.patterns import (
    NM,
    VNM,
    Block,
    Channels,
    DoublePruned,
    Hybrid,
    Pattern,
    PatternError,
    Unstructured,
    matrix_shape,
    parse,
)


@pytest.mark.parametrize(
    "text",
    ["2:4", "<=2:4", "64:64", "1:1", "transposable 8:16", "transposable <=8:16", "transposable 8:16 x 4:8"],
)
def test_string_form_round_trips(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


@given(st.data())
def test_every_pattern_round_trips(data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 64))
    n = data.draw(st.integers(1, m))
    fill = data.draw(st.sampled_from(["exact", "at_most"]))
    pattern = NM(n, m, transposable=data.draw(st.booleans()), fill=fill)
    assert parse(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("5:4", "between 1 and m = 4"),
        ("0:4", "between 1 and m = 4"),
        ("2:65", "between 1 and 64"),
        ("2:0", "between 1 and 64"),
        ("", "not a pattern"),
        ("2-4", "not a pattern"),
        ("2:4 x 2:4", "transposable"),
        ("transposable 8:16 x 3:8", "exact fill needs equal numbers"),
        ("9999999999:4", "not a pattern"),
        ("٢:٤", "not a pattern"),
    ],
)
def test_malformed_patterns_are_named(text: str, word: str) -> None:
    with pytest.raises(PatternError, match=word):
        parse(text)


def test_unequal_budgets_are_allowed_as_limits() -> None:
    pattern = parse("transposable <=8:16 x 3:8")
    assert (pattern.tile.row_keep, pattern.tile.col_keep, pattern.tile.at_most) == (8, 3, True)
    assert pattern.density == 3 / 8


def test_foreign_notation_counts_zeros_or_kept() -> None:
    assert NM.from_zeros(4, 16) == NM(12, 16)
    assert NM.from_kept(4, 16, transposable=True) == NM(4, 16, transposable=True)
    with pytest.raises(PatternError):
        NM.from_zeros(4, 4)


def test_convolutions_are_seen_as_matrices() -> None:
    assert matrix_shape((64, 32, 3, 3)) == (64, 288)
    assert matrix_shape((8, 4, 5)) == (8, 20)


@pytest.mark.parametrize("shape", [(4,), (), (1, 2, 3, 4, 5), (0, 4), (4, 0)])
def test_shapes_that_are_no_weights_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PatternError):
        parse("2:4").grid(shape)


def test_ragged_edges_can_be_refused() -> None:
    with pytest.raises(PatternError, match="do not cover"):
        parse("transposable 8:16", ragged="error").grid((100, 96))
    assert parse("transposable 8:16", ragged="error").grid((96, 96)).tiles == 36


@pytest.mark.parametrize("options", [{"axis": "sideways"}, {"ragged": "cut"}, {"fill": "some"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(PatternError):
        NM(2, 4, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda number: NM(number, 4),
        lambda number: NM(2, number),
        lambda number: NM(2, 4, transposable=True, fill="at_most", n_out=number),
        lambda number: VNM(number, 2, 8),
        lambda number: Block(number, 4, 0.5),
        lambda number: Hybrid(4, number, NM(2, 4), 0.5),
        lambda number: DoublePruned(number, 4),
    ],
    ids=["n", "m", "n_out", "v", "block", "hybrid", "double"],
)
def test_sizes_and_counts_are_integers(make: Callable[[object], Pattern]) -> None:
    """A mask that keeps 2.5 of every 4 entries does not exist; 2.0 would be another string form of the same pattern."""
    assert str(make(np.int64(4))) == str(make(4))
    for number in (2.5, 4.0, "4", True):
        with pytest.raises(PatternError, match=f"={number!r} is not an integer"):
            make(number)


def test_a_nested_pattern_is_an_object() -> None:
    with pytest.raises(PatternError, match="nested='2:4' is not an n:m pattern"):
        Block(4, 4, 0.5, nested="2:4")  # type: ignore[arg-type]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(PatternError, match="axis"):
        NM(2, 4, transposable=True, axis="out")
    with pytest.raises(PatternError, match="transposable"):
        NM(2, 4, n_out=2)


@pytest.mark.parametrize(
    "text", ["hybrid 1x1{}!", "hybrid 1x1 2:4{}50{}!", "block{}1x1{}50%{}!", "transposable{}!", "{}!{}!"]
)
def test_spaces_are_read_as_one_so_that_no_number_of_them_takes_long(text: str) -> None:
    short = text.format(*[" "] * 3).strip()
    with pytest.raises(PatternError, match=f"^'{short}' is not a pattern"):
        parse(text.format(*[" \t\n " * 1000] * 3))
    assert parse("  hybrid\t128x128   2:4 \n 75% ") == parse("hybrid 128x128 2:4 75%")


@pytest.mark.parametrize("number", [np.float32(0.5), np.float16(0.5), Fraction(1, 2)])
def test_densities_may_be_real_numbers_of_any_type(number: Real) -> None:
    for pattern in (Unstructured(number), Block(2, 2, number), Channels(number), Hybrid(4, 4, NM(2, 4), number)):
        assert parse(str(pattern)) == pattern
        assert type(pattern.density if not isinstance(pattern, Hybrid) else pattern.dense_share) is float
