"""Slow twins of the vector operations: one lane and one line at a time, in Python integers.

Lane arrays are `[place, 16]` here; entry (i, j) of a tile has place `i * row_size + j`.
"""

import numpy as np

LANES = 16


def to_lanes(tiles, row_size, filler):
    """Return 16 tiles `[16, rows, cols]` as a lane array `[rows * row_size, 16]`, padded on the right."""
    _, rows, cols = tiles.shape
    lanes = np.full((rows, row_size, LANES), filler, tiles.dtype)
    lanes[:, :cols] = tiles.transpose(1, 2, 0)
    return lanes.reshape(rows * row_size, LANES)


def line(x, first, step, count):
    """Return the entries of a line, `[count, 16]`."""
    return x[first + step * np.arange(count)]


def threshold_update(x, lines, apart, step, others, mine, floors, keep, relax, size):
    """Return the duals half-way between the keep-th and the next largest of `x - others`, over-relaxed, floored."""
    new = mine.copy()
    for number in range(lines):
        rest = line(x, number * apart, step, size).astype(np.int64) - others[:size]
        for lane in range(LANES):
            ordered = sorted(rest[:, lane].tolist(), reverse=True)
            centre = (ordered[keep - 1] + ordered[keep] + 1) >> 1
            move = ((centre - int(mine[number, lane])) >> 1) if relax else 0
            new[number, lane] = max(centre + move, int(floors[number, lane]))
    return new


def balanced(x, lines, apart, step, others, mine, floors, keep, size, bound):
    """Return the lanes where every line keeps `keep` entries, or fewer if its dual is at its floor."""
    lanes = []
    for lane in range(LANES):
        counts = [
            int((line(x, number * apart, step, size)[:, lane] - others[:size, lane] >= mine[number, lane]).sum())
            for number in range(lines)
        ]
        fits = [
            abs(int(mine[number, lane])) < bound
            and (count == keep or (count < keep and mine[number, lane] == floors[number, lane]))
            for number, count in enumerate(counts)
        ]
        lanes.append(all(fits))
    return bits(lanes)


def bits(lanes) -> int:
    """Return the lanes that are true, one bit each."""
    return sum(1 << lane for lane, value in enumerate(lanes) if value)
