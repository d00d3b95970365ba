"""Edge relaxation in vectors of 8 against one edge at a time."""

import numpy as np
import pytest

from masksmith.kernels.jit import jit
from masksmith.kernels.shortest_paths.relaxation import VECTOR_LENGTH, _relax_plain, relax

VALUES = [0.0, -0.0, 5e-324, 1.0, 1.0, 2.0, -1.0, 1e300, np.inf]


@jit
def run(costs, first, start, node, distance, predecessor):
    """Intrinsics can only be called by kernels."""
    relax(costs, first, start, node, distance, predecessor)


@pytest.mark.parametrize("length", [VECTOR_LENGTH, 2 * VECTOR_LENGTH, 5 * VECTOR_LENGTH])
@pytest.mark.parametrize("start", [0.0, 1.0, -1.0, 5e-324, np.inf])
def test_distances_decrease_to_the_cheapest_edge(length, start):
    for first in (0, length, 3):
        rng = np.random.default_rng(first)
        costs, distance = rng.choice(VALUES, 2 * length), rng.choice(VALUES, length)
        predecessor = rng.integers(-2, 9, length)
        expected = np.minimum(distance, start + costs[first : first + length])
        parents = np.where(start + costs[first : first + length] < distance, 7, predecessor)
        plain = (distance.copy(), predecessor.copy())
        run(costs, first, start, 7, distance, predecessor)
        _relax_plain(costs, first, start, 7, *plain)
        for found in ((distance, predecessor), plain):
            assert np.array_equal(found[0], expected)
            assert np.array_equal(found[1], parents)
