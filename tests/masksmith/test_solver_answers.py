"""Solvers of users: what they return is checked before kernels read it, and they cannot change what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

import masksmith as ms
from masksmith import Panel, PanelAnswer
from masksmith.patterns import TileSpec

SCORES = np.random.default_rng(0).random((32, 64))


def edited(edit: Callable[[Panel, PanelAnswer], Any], parallelism: str = "none") -> Any:
    """Return a solver that gives the exact answer of each panel to `edit`, and returns what this returns."""

    @dataclass(frozen=True)
    class Edited:
        name: ClassVar[str] = "edited"
        version: ClassVar[int] = 1

        @property
        def parallelism(self) -> str:
            return parallelism

        def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
            return None

        def __call__(self, panel: Panel) -> Any:
            return edit(panel, (ms.TopK() if panel.tile.separable else ms.Exact())(panel))

    return Edited()


@dataclass(frozen=True)
class WithoutReturn:
    """A solver without a return statement, which other processes can load."""

    name: ClassVar[str] = "without return"
    version: ClassVar[int] = 1
    parallelism: ClassVar[str] = "processes"

    def refusal(self, tile: TileSpec, *, forced: bool) -> str | None:
        return None

    def __call__(self, panel: Panel) -> Any:
        return None


@pytest.mark.parametrize("pattern", ["transposable 8:16", "transposable <=8:16", "2:4"])
@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda panel, answer: None, "it returned None; expected a PanelAnswer; does it lack a return statement?"),
        (lambda panel, answer: (answer.mask,), "it returned a tuple; expected a PanelAnswer"),
        (lambda panel, answer: replace(answer, mask=None), "whose mask is None; expected bool [32, 64]"),
        (lambda panel, answer: replace(answer, mask=answer.mask.tolist()), "whose mask is a list"),
        (lambda panel, answer: replace(answer, mask=answer.mask * 1.0), "whose mask is float64 [32, 64]"),
        (lambda panel, answer: replace(answer, mask=answer.mask[:16]), "whose mask is bool [16, 64]"),
        (lambda panel, answer: replace(answer, mask=answer.mask.T), "whose mask is bool [64, 32]"),
        (lambda panel, answer: replace(answer, row_duals=None), "whose row_duals is None; expected float64 ["),
        (lambda panel, answer: replace(answer, row_duals=answer.row_duals[:1]), "whose row_duals is float64 [1,"),
        (lambda panel, answer: replace(answer, row_duals=answer.row_duals.transpose(1, 0, 2)), "whose row_duals is"),
        (lambda panel, answer: replace(answer, col_duals=answer.col_duals.astype("f4")), "whose col_duals is float32"),
        (lambda panel, answer: replace(answer, col_duals=answer.col_duals[:, :-1]), "whose col_duals is float64 ["),
    ],
)  # fmt: skip
def test_answers_of_other_types_or_shapes_are_refused(
    pattern: str, edit: Callable[[Panel, PanelAnswer], Any], problem: str
) -> None:
    with pytest.raises(ms.VerificationError) as caught:
        ms.solve(SCORES, pattern, edited(edit), keep_duals=True)
    assert "solver 'edited', " in str(caught.value)
    assert " tiles: it returned " in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_missing_answer_is_refused_on_threads_and_on_processes(threads: int) -> None:
    scores = np.ones((1024, 1024), np.float32)
    for solver in (WithoutReturn(), edited(lambda panel, answer: None, "threads")):
        with pytest.raises(ms.VerificationError, match="expected a PanelAnswer"):
            ms.solve(scores, "2:4", solver, threads=threads)


@pytest.mark.parametrize("pattern", ["transposable 8:16", "2:4"])
def test_a_solver_cannot_change_what_it_is_given(pattern: str) -> None:
    scores, start = SCORES.copy(), ms.solve(SCORES, pattern, keep_duals=True)
    keep = np.zeros(SCORES.shape, np.bool_)
    given = []

    def note(panel: Panel, answer: PanelAnswer) -> PanelAnswer:
        assert panel.forced is not None
        assert panel.start_duals is not None
        given.extend([panel.scores, panel.forced, *panel.start_duals])
        return answer

    solution = ms.solve(scores, pattern, edited(note), must_keep=keep, warm_start=start)
    assert len(given) == 4
    for array in given:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert solution.objective == start.objective
    scores[0, 0] = 0  # the caller may write to the scores afterwards


def test_scores_in_read_only_memory_are_solved() -> None:
    scores = np.frombuffer(SCORES.astype(np.float32).tobytes(), np.float32).reshape(SCORES.shape)
    assert ms.solve(scores, "2:4").status == "optimal"
