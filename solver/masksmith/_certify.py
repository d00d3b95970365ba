"""Certifies the masks of a panel from their duals, independently of the solver."""

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


@dataclass(frozen=True, slots=True)
class PanelCertificate:
    """Certificate of every tile of a panel.

    Attributes:
        objective: `[down, across]`, score kept.
        violation: `[down, across]`; objective + violation is an upper bound on any mask of the tile.
        legal: `[down, across]`, whether the budgets hold.
    """

    objective: Duals
    violation: Duals
    legal: Bools


def certify_panel(panel: Panel, answer: PanelAnswer) -> PanelCertificate:
    """Check a mask against its budgets and bound the optimum by its duals (Lagrangian duality).

    For duals that are not finite, the bound is the sum of the tile's scores.
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
    certify_rows(
        panel.scores, np.ascontiguousarray(answer.mask), NO_FORCED if panel.forced is None else panel.forced,
        answer.row_duals.reshape(panel.down, panel.across), panel.tile.cols, panel.tile.row_keep, panel.tile.at_most,
        certificate.objective, certificate.violation, certificate.legal,
    )  # fmt: skip


def _certify_tiles(panel: Panel, answer: PanelAnswer, certificate: PanelCertificate) -> None:
    tile, scores, mask = panel.tile, panel.scores, np.ascontiguousarray(answer.mask)
    u, v = np.ascontiguousarray(answer.row_duals), np.ascontiguousarray(answer.col_duals)
    tiles, unproved_count = np.arange(panel.down * panel.across), panel.down * panel.across
    certificate.violation[:], certificate.legal[:] = 0.0, True
    if COMPILED:
        slot, floor = slot_width(tile.cols), 0.0 if tile.at_most else -np.inf
        first_pass = compile_first_pass(slot, slot == tile.cols and tile.cols * panel.across >= WIDTH)
        unproved_count = first_pass(
            scores, mask, u, v, tile.row_keep, tile.col_keep, floor, certificate.objective, tiles
        )
    if unproved_count:
        certify(
            scores, mask, NO_FORCED if panel.forced is None else panel.forced, u, v, tile.row_keep, tile.col_keep,
            tile.at_most, tiles[:unproved_count], certificate.objective, certificate.violation, certificate.legal,
        )  # fmt: skip


def _bound_by_total(panel: Panel, certificate: PanelCertificate) -> None:
    tiles = panel.scores.reshape(panel.down, panel.tile.rows, panel.across, panel.tile.cols)
    total = tiles.sum(axis=(1, 3), dtype=np.float64) * (1 + 2.0**-40)
    overflowed = ~np.isfinite(certificate.violation)
    certificate.violation[overflowed] = (total - certificate.objective)[overflowed]
