"""What a notebook shows of a solution."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import masksmith as ms


@pytest.mark.parametrize("pattern", ["transposable 4:8", "2:4", "block 8x8 50%", "30%"])
def test_a_solution_shows_its_numbers_and_the_corner_of_its_mask(pattern):
    scores = np.abs(np.random.default_rng(0).standard_normal((40, 48))).astype(np.float32)
    solution = ms.solve(scores, pattern)
    page = ElementTree.fromstring(solution._repr_html_())
    cells = [cell.text for cell in page.iter("td")]
    assert str(solution.pattern) in cells
    assert "0, proved" in cells
    squares = next(path.get("d") for path in page.iter("path"))
    assert len(re.findall("z", squares)) == np.count_nonzero(solution.mask[:32, :32])


@pytest.mark.parametrize(
    ("pattern", "options", "tile"),
    [
        ("2:4", {}, (1, 4)),
        (ms.parse("2:4", axis="out"), {}, (4, 1)),
        ("2:4", {"layout": "in out"}, None),
        ("transposable 2:8", {}, (8, 8)),
    ],
)
def test_lines_separate_the_tiles_of_the_stored_mask(pattern, options, tile):
    scores = np.abs(np.random.default_rng(0).standard_normal((16, 24))).astype(np.float32)
    page = ElementTree.fromstring(ms.solve(scores, pattern, **options)._repr_html_())
    drawn = list(page.iter("path"))
    assert [path.get("fill") for path in drawn] == ["currentColor", "none"]
    lines = drawn[1].get("d")
    if tile is None:
        assert lines == "M0 0h120v80h-120z"
    else:
        assert (lines.count("h"), lines.count("v")) == (16 // tile[0] + 1, 24 // tile[1] + 1)


def test_so_does_a_convolution_of_torch():
    weight = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    assert "<svg" in ms.solve(weight, "2:4")._repr_html_()
