"""Checks the types and shapes of what solvers return; their values are certified later."""

from __future__ import annotations

import numpy as np

from masksmith._errors import VerificationError
from masksmith._panels import Panel, PanelAnswer
from masksmith.solvers.base import Solver


def check_answer(answer: object, panel: Panel, solver: Solver) -> PanelAnswer:
    """Return a solver's answer for a panel, if it is a `PanelAnswer` with arrays of the documented dtypes and shapes.

    The kernels that verify answers rely on both, and would read other memory.

    Raises:
        VerificationError: If it is not.
    """
    tile, tiles = panel.tile, (panel.down, panel.across)
    if not isinstance(answer, PanelAnswer):
        advice = "; does it lack a return statement?" if answer is None else ""
        raise _error(solver, panel, f"returned {_described(answer)}; expected a PanelAnswer{advice}")
    _check_array("mask", answer.mask, np.dtype(np.bool_), panel.scores.shape, panel, solver)
    _check_array("row_duals", answer.row_duals, np.dtype(np.float64), (*tiles, tile.rows), panel, solver)
    _check_array("col_duals", answer.col_duals, np.dtype(np.float64), (*tiles, tile.cols), panel, solver)
    return answer


def _check_array(
    label: str, array: object, dtype: np.dtype[np.generic], shape: tuple[int, ...], panel: Panel, solver: Solver
) -> None:
    if isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == shape:
        return
    expected = f"{dtype} {list(shape)}"
    raise _error(solver, panel, f"returned a PanelAnswer whose {label} is {_described(array)}; expected {expected}")


def _described(value: object) -> str:
    """Return dtype and shape of an array, and the type of anything else."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {list(value.shape)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _error(solver: Solver, panel: Panel, reason: str) -> VerificationError:
    tile = panel.tile
    return VerificationError(f"solver {solver.name!r}, {tile.rows}x{tile.cols} tiles: it {reason}")
