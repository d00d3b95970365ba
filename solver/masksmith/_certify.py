"""Certifies the mask of a panel from the solver's duals, with code that no solver uses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._panels import Bools, Duals, Panel, PanelAnswer
from .kernels.certificate.rows import certify_rows
from .kernels.certificate.tiles import certify
from .kernels.certificate.tiles_simd import WIDTH, compile_first_pass, slot_width
from .kernels.jit import COMPILED

NO_FORCED = np.zeros((0, 0), np.int8)
"""The argument `forced` of kernels if every entry is free: an empty matrix."""
ROUND_UP_FACTOR = 1 + 2.0**-40
"""The float64 sum of a tile's scores (at most 4096 numbers, none negative), times this, is not below the exact sum."""


@dataclass(frozen=True, slots=True)
class PanelCertificate:
    """Certificate of every tile of a panel.

    Attributes:
        objective: `[down, across]`, score kept.
        violation: `[down, across]`; no allowed mask of the tile keeps more than objective + violation.
        legal: `[down, across]`, whether the budgets hold.
    """

    objective: Duals
    violation: Duals
    legal: Bools


def certify_panel(panel: Panel, answer: PanelAnswer) -> PanelCertificate:
    """Check a solver's mask against the budgets, and bound the optimum by the solver's duals (Lagrangian duality).

    If the violation of a tile is not finite, because a dual is NaN or infinite or a sum overflows, the bound is the sum
    of the tile's scores.
    """
    shape = (panel.down, panel.across)
    certificate = PanelCertificate(np.empty(shape), np.empty(shape), np.empty(shape, np.bool_))
    if panel.tile.separable:
        _certify_rows(panel, answer, certificate)
    else:
        _certify_tiles(panel, answer, certificate)
    with np.errstate(over="ignore"):
        if not math.isfinite(certificate.violation.sum()):
            _bound_by_total(panel, certificate)
    return certificate


def _certify_rows(panel: Panel, answer: PanelAnswer, certificate: PanelCertificate) -> None:
    duals = answer.row_duals.reshape(panel.down, panel.across)
    certify_rows(
        panel.scores, np.ascontiguousarray(answer.mask), NO_FORCED if panel.forced is None else panel.forced, duals,
        panel.tile.cols, panel.tile.row_keep, panel.tile.at_most, certificate.objective, certificate.violation,
        certificate.legal,
    )  # fmt: skip
    # Every comparison with NaN is false, so the kernel finds no violation of a NaN dual. The sum is cheaper than a test
    # of each dual.
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isnan(duals.sum()):
            certificate.violation[np.isnan(duals)] = np.nan


def _certify_tiles(panel: Panel, answer: PanelAnswer, certificate: PanelCertificate) -> None:
    tile, scores, mask = panel.tile, panel.scores, np.ascontiguousarray(answer.mask)
    u, v = np.ascontiguousarray(answer.row_duals), np.ascontiguousarray(answer.col_duals)
    # Indices of all tiles; the first pass, if it runs, overwrites them with those of the tiles that it does not prove.
    unproved, unproved_count = np.arange(panel.down * panel.across), panel.down * panel.across
    # These are the values for the tiles that the first pass proves; `certify` overwrites those of the others.
    certificate.violation[:], certificate.legal[:] = 0.0, True
    if COMPILED:
        # A slot is the part of a vector of `WIDTH` columns that one tile occupies.
        slot, least_dual = slot_width(tile.cols), 0.0 if tile.at_most else -np.inf
        fills_all_lanes = slot == tile.cols and tile.cols * panel.across >= WIDTH
        first_pass = compile_first_pass(slot, fills_all_lanes)
        unproved_count = first_pass(
            scores, mask, u, v, tile.row_keep, tile.col_keep, least_dual, certificate.objective, unproved
        )
    if unproved_count:
        certify(
            scores, mask, NO_FORCED if panel.forced is None else panel.forced, u, v, tile.row_keep, tile.col_keep,
            tile.at_most, unproved[:unproved_count], certificate.objective, certificate.violation, certificate.legal,
        )  # fmt: skip


def _bound_by_total(panel: Panel, certificate: PanelCertificate) -> None:
    """Replace each violation that is not finite, so that the bound becomes the sum of the tile's scores."""
    tiles = panel.scores.reshape(panel.down, panel.tile.rows, panel.across, panel.tile.cols)
    bound = tiles.sum(axis=(1, 3), dtype=np.float64) * ROUND_UP_FACTOR
    unbounded = ~np.isfinite(certificate.violation)
    certificate.violation[unbounded] = (bound - certificate.objective)[unbounded]
