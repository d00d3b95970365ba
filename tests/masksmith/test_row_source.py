"""Scores that are read by rows give the solution of the array that they are read from."""

import numpy as np
import pytest

import masksmith as ms


class Rows:
    """Rows of an array, which the next call overwrites, as a reader with one buffer does."""

    def __init__(self, array: np.ndarray, result: np.ndarray | None = None) -> None:
        self.array, self.shape, self.dtype, self.calls = array, array.shape, array.dtype, 0
        self.buffer, self.result = np.full_like(array, np.nan), result

    def rows(self, first: int, last: int) -> np.ndarray:
        self.calls += 1
        self.buffer[:] = np.nan
        self.buffer[: last - first] = self.array[first:last]
        return self.buffer[: last - first] if self.result is None else self.result


def scores(dtype: type = np.float32, shape: tuple[int, ...] = (40, 24)) -> np.ndarray:
    return np.abs(np.random.default_rng(7).standard_normal(shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pattern", ["2:4", "transposable 8:16", "<=2:4", "block 8x8 50%", "50%"])
@pytest.mark.parametrize("ragged", ["pad", "dense"])
def test_the_solution_is_that_of_the_array(monkeypatch, dtype, pattern, ragged) -> None:
    monkeypatch.setattr("masksmith._engine.panel_store.PANEL_ENTRIES", 128)
    array = scores(dtype)
    source = Rows(array)
    by_rows, whole = (ms.solve(each, ms.parse(pattern, ragged=ragged), threads=1) for each in (source, array))
    np.testing.assert_array_equal(by_rows.mask, whole.mask)
    assert by_rows.mask.shape == array.shape
    assert (by_rows.objective, by_rows.upper_bound, by_rows.total_score) == (
        whole.objective,
        whole.upper_bound,
        whole.total_score,
    )
    assert source.calls > 1


@pytest.mark.parametrize("dtype", [np.float64, np.float32, "f4", "f8"])
def test_a_dtype_may_be_a_class_or_a_text(dtype) -> None:
    source = Rows(scores(np.dtype(dtype)))
    source.dtype = dtype
    np.testing.assert_array_equal(ms.solve(source, "2:4").mask, ms.solve(source.array, "2:4").mask)
    source.dtype = np.int8
    with pytest.raises(ms.ScoresError, match="are float32 or float64, not int8"):
        ms.solve(source, "2:4")


def test_an_invalid_score_is_named_by_its_place() -> None:
    array = scores()
    array[33, 5] = -1
    with pytest.raises(ms.ScoresError, match=r"negative score -1 at \[33, 5\]"):
        ms.solve(Rows(array), "2:4")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (Rows(scores()), {"pattern": ms.parse("2:4", axis="out")}, "along axis 'in'"),
        (Rows(scores(shape=(4, 8, 3))), {"pattern": "2:4"}, "two dimensions"),
        (Rows(scores(shape=(2, 8, 8))), {"pattern": "2:4", "layout": "stack out in"}, "are one matrix"),
        (Rows(scores().astype(np.float16)), {"pattern": "2:4"}, "are float32 or float64, not float16"),
        (Rows(scores(), np.ones((3, 24), np.float32)), {"pattern": "2:4"}, r"not float32 \[40, 24\]"),
        (Rows(scores(), np.ones((40, 24))), {"pattern": "2:4"}, r"returned float64 \[40, 24\]"),
    ],
)
def test_what_cannot_be_read_by_rows_is_refused(source, options, message) -> None:
    with pytest.raises(ms.ScoresError, match=message):
        ms.solve(source, **options)


def test_several_sources_are_solved_apart() -> None:
    array = scores()
    solutions = ms.solve_many({"a": Rows(array), "b": Rows(array), "c": array}, "2:4")
    for solution in solutions.values():
        np.testing.assert_array_equal(solution.mask, solutions["c"].mask)


@pytest.mark.parametrize("pattern", ["40%", "2:4", "transposable 2:4", "block 4x4 40%", "block 4x4 40% nested 2:4"])
def test_budgets_are_divided_as_for_the_arrays(monkeypatch, pattern) -> None:
    arrays = {"a": scores(), "b": scores(np.float64, (12, 8)) * 2}
    expected = ms.allocate(arrays, pattern, "40%")
    monkeypatch.setattr("masksmith.allocation.allocation.SLICE_ENTRIES", 100)
    assert ms.allocate({name: Rows(array) for name, array in arrays.items()}, pattern, "40%") == expected
    arrays["a"][33, 5] = -1
    with pytest.raises(ms.ScoresError, match=r"'a': negative score -1 at \[33, 5\]"):
        ms.allocate({"a": Rows(arrays["a"])}, pattern, "40%")


class Frame:
    """A table with a method `rows` of its own, as data frames have, that numpy reads."""

    shape = (40, 24)

    def rows(self) -> list[list[float]]:
        return scores().tolist()

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return scores()


def test_a_table_that_numpy_reads_is_no_source_of_rows() -> None:
    np.testing.assert_array_equal(ms.solve(Frame(), "2:4").mask, ms.solve(scores(), "2:4").mask)
