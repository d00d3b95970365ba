"""Rows of a layer in a root are read in few requests: near ones together, distant ones without the bytes between."""

import numpy as np
import pytest

from masksmith_service.layers import reader
from masksmith_service.layers.reader import MaskedLayer
from masksmith_service.references.access import LocatedPath
from masksmith_state.jobs.shards import PlannedTensor, Source
from masksmith_state.roots.directory import DirectoryRoot
from masksmith_wire.documents import MasksOptions

ROWS, COLS, START = 400, 200, 64
WEIGHT = np.random.default_rng(5).integers(0, 255, (ROWS, COLS), np.uint8)


@pytest.fixture
def layer(tmp_path):
    (tmp_path / "w").write_bytes(bytes(START) + WEIGHT.tobytes())
    file = LocatedPath(DirectoryRoot(str(tmp_path)), "w")
    source = Source(location=file.location, version=file.stat().version)
    tensor = PlannedTensor(name="w", digest="", dtype="U8", shape=[ROWS, COLS], start=START, source=source)
    return MaskedLayer(tensor, MasksOptions(pattern="50%"), [0], [("mask", None)], file)


@pytest.fixture
def requests(monkeypatch):
    """First and last byte of each request; rows with up to 2 rows between them are read together, within 20 rows."""
    requests, read = [], DirectoryRoot.read

    def record(self, path, start, stop, version):
        requests.append((start - START, stop - START))
        return read(self, path, start, stop, version)

    monkeypatch.setattr(DirectoryRoot, "read", record)
    monkeypatch.setattr(reader, "GAP_BYTES", 2 * COLS)
    monkeypatch.setattr(reader, "SPAN_BYTES", 20 * COLS)
    return requests


@pytest.mark.parametrize(
    ("rows", "spans"),
    [
        (range(400), [(0, 400)]),
        ([7], [(7, 8)]),
        (range(0, 60, 3), [(0, 19), (21, 40), (42, 58)]),
        (range(0, 400, 4), [(row, row + 1) for row in range(0, 400, 4)]),
        ([1, 2, 5, 9, 10, 300, 399], [(1, 6), (9, 11), (300, 301), (399, 400)]),
    ],
)
def test_near_rows_are_read_together(layer, requests, rows, spans):
    scores = layer.read_scores(None, rows, 0, COLS)
    assert (scores == WEIGHT[list(rows)]).all()
    assert requests == [(first * COLS, last * COLS) for first, last in spans]


def test_columns_of_near_rows_are_read_together(layer, requests):
    scores = layer.read_scores(None, range(10, 30), 50, 60)
    assert (scores == WEIGHT[10:30, 50:60]).all()
    assert requests == [(10 * COLS + 50, 29 * COLS + 60)]


def test_many_rows_of_a_large_layer_take_few_requests(layer, requests):
    layer.read_scores(None, range(0, ROWS, 2), 0, COLS)
    assert len(requests) == ROWS // 20
    assert len({start for start, _ in requests}) == len(requests)
