"""Verifies masks of patterns without tiles, by counting, independently of every solver.

The budgets of these patterns belong to the whole tensor; those of V:N:M, to its panels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from masksmith._panels import Bools
from masksmith._tensors import MatrixReader
from masksmith.patterns import VNM, Block, Channels, Hybrid, Pattern, PatternError, Unstructured

from .blocks import check_block, check_hybrid
from .findings import Finding, strips

ROWS_AT_ONCE = 256


def find_violation(mask: MatrixReader, pattern: Pattern, *, at_most: bool = False) -> Finding:
    """Check a mask against a pattern without tiles; the message of the finding is empty if there is no violation.

    Args:
        mask: The mask, True = kept.
        pattern: The pattern.
        at_most: Whether the mask may keep fewer entries than the pattern requires.

    Raises:
        PatternError: If the pattern cannot hold for this shape, or is of an unknown type.
    """
    checks: dict[type, Callable[[MatrixReader, Any, bool], Finding]] = {
        Unstructured: _check_unstructured,
        Channels: _check_channels,
        Block: check_block,
        Hybrid: check_hybrid,
        VNM: _check_vnm,
    }
    if type(pattern) not in checks:
        raise PatternError(f"no verifier is known for {pattern}")
    return checks[type(pattern)](mask, pattern, at_most)


def _check_unstructured(mask: MatrixReader, pattern: Unstructured, at_most: bool) -> Finding:
    expected = pattern.kept(mask.shape)
    actual = sum(int(np.count_nonzero(rows)) for _, rows in strips(mask, ROWS_AT_ONCE))
    if actual == expected or (at_most and actual < expected):
        return Finding()
    return Finding(f"{actual} entries are kept instead of {expected}", (0, 0), 1)


def _check_channels(mask: MatrixReader, pattern: Channels, at_most: bool) -> Finding:
    expected = pattern.kept(mask.shape)
    channels = mask.shape[0 if pattern.axis == "out" else 1]
    channel_size = int(np.prod(mask.shape)) // channels
    counts = np.zeros(channels, np.int64)
    for first_row, rows in strips(mask, ROWS_AT_ONCE):
        if pattern.axis == "out":
            counts[first_row : first_row + len(rows)] = rows.sum(1)
        else:
            # In a row of the matrix, the input channel is the last index, after those of the kernel.
            counts += rows.reshape(-1, channels).sum(0)
    partly_kept = np.flatnonzero((counts > 0) & (counts < channel_size))
    if partly_kept.size and not at_most:
        channel = int(partly_kept[0])
        position = (channel, 0) if pattern.axis == "out" else (0, channel)
        kind = "output" if pattern.axis == "out" else "input"
        return Finding(f"{kind} channel {channel} is only partly kept", position, len(partly_kept), channels)
    actual = int((counts > 0).sum())
    if actual > expected or (actual < expected and not at_most):
        return Finding(f"{actual} channels are kept instead of {expected}", (0, 0), 1, channels)
    return Finding(tiles=channels)


def _check_vnm(mask: MatrixReader, pattern: VNM, at_most: bool) -> Finding:
    grid = pattern.grid(mask.shape)
    count, first_panel = 0, None
    for panel_row, (_, rows) in enumerate(strips(mask, pattern.v)):
        fits = np.concatenate([_fits_vnm(panels, pattern, at_most) for panels in _split_panels(rows, pattern.m)])
        if first_panel is None and not fits.all():
            first_panel = (panel_row, int(fits.argmin()))
        count += int(np.count_nonzero(~fits))
    if first_panel is None:
        return Finding(tiles=grid.tiles)
    message = f"{count} of {grid.tiles} panels violate the pattern, the first is panel {list(first_panel)}"
    return Finding(message, first_panel, count, grid.tiles)


def _split_panels(rows: Bools, m: int) -> Iterator[Bools]:
    """Yield the whole panels of a row of panels, and the cropped last one, if any: `[rows, panels, columns]` each."""
    whole = rows.shape[1] // m * m
    if whole:
        yield rows[:, :whole].reshape(len(rows), -1, m)
    if whole < rows.shape[1]:
        yield rows[:, None, whole:]


def _fits_vnm(panels: Bools, pattern: VNM, at_most: bool) -> Bools:
    """Return, for each panel, whether it can be extended into its padding to a mask of the pattern.

    With `ragged="dense"`, a cropped panel has no padding: it must be kept entirely; if `at_most`, it may keep anything.
    Columns of the padding count among the `pattern.columns` columns that a panel's rows share.
    """
    counts = panels.sum(2)
    if pattern.ragged == "dense" and (panels.shape[0], panels.shape[2]) != (pattern.v, pattern.m):
        return np.asarray(panels.all(axis=(0, 2)) | at_most)
    if at_most:
        return np.asarray((counts.max(0) <= pattern.n) & (panels.any(axis=0).sum(1) <= pattern.columns))
    # The row that keeps least needs most entries in the padding; the other rows can use the same columns.
    padding_columns = pattern.n - counts.min(0)
    shared_columns = panels.any(axis=0).sum(1) + padding_columns
    padding_suffices = padding_columns <= pattern.m - panels.shape[2]
    return np.asarray((counts.max(0) <= pattern.n) & padding_suffices & (shared_columns <= pattern.columns))
