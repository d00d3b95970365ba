"""Pictures of layers with many short rows: adjacent rows are read as one range, and small windows are exact."""

import numpy as np
import pytest
from blake3 import blake3

from masksmith_service.layers import windows
from masksmith_service.layers.reader import NARROW_WIDTH, MaskedLayer
from masksmith_service.layers.windows import SAMPLED_ENTRIES, Window, read_profile, read_window, sampled_rows_per_cell
from masksmith_service.pages.comparison import compare_masks
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_wire import masks
from masksmith_wire.documents import MasksOptions

ROWS, PART = 5000, 2000
OPTIONS = MasksOptions(pattern="50%")


@pytest.fixture
def store(tmp_path):
    return BlobStore(str(tmp_path / "store"), create=True)


@pytest.fixture(params=[1, 3, 16])
def narrow(request, store):
    """A layer of so many columns, its weight and its mask, which is stored in parts of `PART` rows."""
    rng = np.random.default_rng(request.param)
    weight = rng.integers(0, 255, (ROWS, request.param), np.uint8)
    mask = rng.random(weight.shape) < 0.5
    digest = blake3(weight.tobytes()).hexdigest()
    store.put(upload_name(digest), weight.tobytes())
    firsts = range(0, ROWS, PART)
    names = [result_name(f"{first:064x}") for first in firsts]
    for name, first in zip(names, firsts, strict=True):
        store.put(name, masks.pack(mask[first : first + PART]).tobytes())
    tensor = PlannedTensor(name="w", digest=digest, dtype="U8", shape=list(weight.shape), start=0)
    return MaskedLayer(tensor, OPTIONS, list(firsts), [(name, None) for name in names]), weight, mask


@pytest.fixture
def calls(monkeypatch):
    """The number and the length of the ranges of each reading of a blob."""
    calls, get_ranges = [], BlobStore.get_ranges

    def counted(self, name, starts, length, digest=None):
        calls.append((len(starts), length))
        return get_ranges(self, name, starts, length, digest)

    monkeypatch.setattr(BlobStore, "get_ranges", counted)
    monkeypatch.setattr(windows, "BAND_ROWS", 1500)
    return calls


def test_a_profile_reads_adjacent_rows_as_one_range(narrow, store, calls):
    layer, _, mask = narrow
    profile = read_profile(layer, store)
    assert (profile["row_kept"] == mask.sum(axis=1)).all()
    assert (profile["col_kept"] == mask.sum(axis=0)).all()
    assert max(count for count, _ in calls) <= windows.SAMPLED_ROWS
    # 0-1499, 1500-1999 | 2000-2999, 3000-3999 | 4000-4499, 4500-4999
    assert calls[:6] == [(1, rows * -(-mask.shape[1] // 8)) for rows in (1500, 500, 1000, 1000, 500, 500)]


def test_a_comparison_reads_adjacent_rows_as_one_range(narrow, store, calls):
    layer, _, mask = narrow
    overlap = compare_masks(layer, layer, store)
    assert (overlap.both, overlap.only_a, overlap.only_b) == (mask.mean(), 0, 0)
    assert {count for count, _ in calls} == {1}
    assert max(length for _, length in calls) <= 1500 * 2


@pytest.mark.parametrize(("first_row", "step"), [(0, 700), (123, 40), (0, 10_000)])
def test_a_window_of_a_narrow_layer_is_exact(narrow, store, calls, first_row, step):
    layer, weight, mask = narrow
    first_col = weight.shape[1] - 1
    found = read_window(layer, store, Window(first_row, first_col, 256, 256, step).clipped(layer.shape))
    starts = range(first_row, ROWS, step)
    cells = [np.s_[start : start + step, first_col:] for start in starts][:256]
    assert found["kept"].shape == (len(cells), 1)
    assert found["kept"][:, 0] == pytest.approx([mask[cell].mean() for cell in cells], rel=1e-6)
    assert found["scores"][:, 0] == pytest.approx([weight[cell].mean() for cell in cells], rel=1e-6)
    assert found["kept_scores"][:, 0] == pytest.approx([weight[cell][mask[cell]].mean() for cell in cells], rel=1e-6)
    assert {count for count, _ in calls} == {1}


def layer_of(*shape):
    tensor = PlannedTensor(name="w", dtype="F32", shape=list(shape), start=0)
    return MaskedLayer(tensor, OPTIONS, [0], ["mask"])


@pytest.mark.parametrize(("shape", "step"), [((50_257, 8), 400), ((200_000, 16), 800), ((2**20, 1), 4096)])
def test_all_rows_of_a_small_narrow_layer_are_read(shape, step):
    layer = layer_of(*shape)
    assert sampled_rows_per_cell(layer, Window(0, 0, 256, 256, step).clipped(layer.shape)) == step


@pytest.mark.parametrize(("shape", "col"), [((2**25, 1), 0), ((2**20, 4096), 4095), ((2**22, 128), 127)])
def test_rows_that_are_read_on_their_own_count_as_wide_ones(shape, col):
    layer, step = layer_of(*shape), shape[0] // 256
    sampled = sampled_rows_per_cell(layer, Window(0, col, 256, 256, step).clipped(layer.shape))
    assert sampled == SAMPLED_ENTRIES // (256 * NARROW_WIDTH) < step


def test_a_single_row_of_large_cells_is_read_in_bands(narrow, store, calls, monkeypatch):
    monkeypatch.setattr(windows, "SAMPLED_ENTRIES", NARROW_WIDTH * 30)
    monkeypatch.setattr(windows, "BAND_ROWS", 7)
    layer, _, mask = narrow
    found = read_window(layer, store, Window(0, 0, 1, mask.shape[1], ROWS).clipped(layer.shape))
    assert max(count for count, _ in calls) == 7
    rows = [number * ROWS // 30 for number in range(30)]
    assert found["kept"] == pytest.approx(mask[rows].mean(), rel=1e-6)
