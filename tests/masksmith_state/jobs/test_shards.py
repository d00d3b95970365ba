from itertools import pairwise

import pytest
from hypothesis import given, strategies as st
from support.shards import specified

from masksmith.layouts import oversize_reason
from masksmith_state.jobs import shards
from masksmith_state.jobs.costs import OVERHEAD_S, TARGET_S
from masksmith_state.jobs.shards import MaskPart, PlannedTensor, Shard, cut, result_key, shards_by_tensor

PATTERNS = ["2:4", "1:1", "transposable 8:16", "transposable <=3:5", "transposable 8:16 x 4:8", "7:64"]
SHAPES = st.lists(st.integers(1, 100), min_size=2, max_size=4)


def tensor(shape, dtype="F32", name="w", start=96):
    return PlannedTensor(name=name, digest="0" * 64, dtype=dtype, shape=shape, start=start)


@given(
    st.lists(st.tuples(SHAPES, st.sampled_from(["F64", "F32", "BF16", "I8"])), min_size=1, max_size=4),
    st.sampled_from(PATTERNS),
    st.sampled_from(["in", "out"]),
    st.integers(1, 10_000),
)
def test_shards_cover_every_row_once_in_whole_tile_rows_within_the_bound(wanted, text, axis, shard_bytes):
    specification = specified(text, axis="in" if text.startswith("t") else axis)
    pattern = specification.pattern
    tensors = [tensor(shape, dtype, str(number), start=number) for number, (shape, dtype) in enumerate(wanted)]
    shards = cut(tensors, specification, shard_bytes)
    unit = pattern.tile.cols if pattern.axis == "out" else pattern.tile.rows
    for number, planned in enumerate(tensors):
        mine = [shard for shard in shards if shard.tensor == number]
        assert mine[0].first == 0
        assert mine[-1].last == planned.shape[0]
        for before, after in pairwise(mine):
            assert before.last == after.first
        for shard in mine:
            assert shard.first < shard.last
            assert shard.first % unit == 0
            rows = shard.last - shard.first
            assert rows <= unit or rows * planned.row_bytes <= shard_bytes
    assert [shard.tensor for shard in shards] == sorted(shard.tensor for shard in shards)


def test_a_shard_takes_as_many_tile_rows_as_fit():
    shards = cut([tensor([100, 8])], specified("transposable 2:4"), 3 * 4 * 8 * 4)
    assert [(shard.first, shard.last) for shard in shards][:2] == [(0, 12), (12, 24)]
    assert shards[-1].last == 100


@pytest.mark.parametrize("text", ["10%", "block 4x4 50% balance rows", "channels in 50%"])
def test_patterns_that_bind_the_whole_tensor_make_one_shard_of_it(text):
    shards = cut([tensor([100, 8]), tensor([7, 8])], specified(text), 64)
    assert [(shard.tensor, shard.first, shard.last) for shard in shards] == [(0, 0, 100), (1, 0, 7)]


def test_tensors_too_large_for_one_worker_are_told_from_others():
    def reason(shape, specification):
        return oversize_reason(shape, "F32", specification.whole_tensor_needed_by(specification.pattern))

    large = [2**20, 2**10]
    assert "10% needs the whole tensor" in reason(large, specified("10%"))
    assert "spectrum needs the whole tensor" in reason(large, specified("2:4", spectrum=True))
    assert reason(large, specified("2:4")) is None
    assert reason([2**10, 2**10], specified("10%")) is None
    assert len(cut([tensor(large)], specified("2:4"))) == 256


def test_shards_begin_at_whole_blocks_of_rows_where_they_may():
    shards = cut([tensor([100, 8])], specified("2:4"), 20 * 8 * 4)
    assert [shard.first for shard in shards] == [0, 16, 32, 48, 64, 80, 96]
    shards = cut([tensor([100, 8])], specified("transposable 8:12"), 60 * 8 * 4)
    assert [shard.first for shard in shards] == [0, 48, 96]
    assert [shard.last for shard in cut([tensor([100, 8])], specified("2:4", spectrum=True), 64)] == [100]


def test_tied_tensors_share_their_shards():
    tensors = [tensor([8, 8], name="a"), tensor([8, 8], name="b"), tensor([8, 4], name="c"), tensor([8, 8], name="d")]
    shards = cut(tensors, specified("2:4"), 4 * 8 * 4)
    assert [(shard.tensor, shard.first) for shard in shards] == [(0, 0), (0, 4), (2, 0)]
    assert shards_by_tensor(tensors, dict(enumerate(shards))) == [[0, 1], [0, 1], [2], [0, 1]]
    apart = cut(tensors, specified("2:4", budget="50%"), 4 * 8 * 4)
    assert shards_by_tensor(tensors, dict(enumerate(apart))) == [[0, 1], [2, 3], [4], [5, 6]]


def test_row_bytes_are_those_of_all_other_dimensions():
    assert tensor([5, 3, 2, 2], "BF16").row_bytes == 24


SPECIFICATION = specified("2:4")


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": tensor([4, 4], "F16")},
        {"tensor": tensor([4, 8])},
        {"tensor": tensor([4, 4]).model_copy(update={"digest": "1" * 64})},
        {"tensor": tensor([4, 4]).model_copy(update={"start": 104})},
        {"shard": Shard(tensor=0, first=0, last=4)},
        {"specification": specified("1:4")},
        {"specification": specified("2:4", axis="out")},
        {"specification": specified("2:4", ragged="dense")},
        {"specification": specified("2:4", scores="given")},
        {"specification": specified("2:4", time_limit_s=1.0)},
        {"specification": specified("2:4", spectrum=True)},
        {"solver": "greedy"},
        {"solver_version": 2},
    ],
    ids=[
        "dtype",
        "shape",
        "digest",
        "start",
        "rows",
        "pattern",
        "axis",
        "ragged",
        "scores",
        "limit",
        "spectrum",
        "solver",
        "version",
    ],
)
def test_a_results_name_changes_with_everything_that_determines_it(change):
    base = {"tensor": tensor([4, 4]), "shard": Shard(tensor=0, first=0, last=2), "specification": SPECIFICATION,
            "solver": "exact", "solver_version": 1}  # fmt: skip
    assert result_key(**base) != result_key(**base | change)


def test_results_of_an_earlier_version_of_the_scores_are_not_used(monkeypatch):
    arguments = (tensor([4, 4]), Shard(tensor=0, first=0, last=2), SPECIFICATION, "exact", 1)
    before = result_key(*arguments)
    monkeypatch.setattr(shards, "SCORES_VERSION", 0)
    assert result_key(*arguments) != before


def test_a_results_name_does_not_depend_on_the_tensors_name_or_place():
    one = result_key(tensor([4, 4]), Shard(tensor=0, first=0, last=2), SPECIFICATION, "exact", 1)
    assert one == result_key(tensor([4, 4], name="other"), Shard(tensor=7, first=0, last=2), SPECIFICATION, "exact", 1)


def test_a_results_name_does_not_depend_on_the_previous_mask():
    part = MaskPart(blob="x", start=0, first=0, last=4)
    before = tensor([4, 4]).model_copy(update={"previous": [part]})
    shard = Shard(tensor=0, first=0, last=2)
    assert result_key(before, shard, SPECIFICATION, "exact", 1) == result_key(
        tensor([4, 4]), shard, SPECIFICATION, "exact", 1
    )


def planned(rows, cols, **more):
    return PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=[rows, cols], start=0, **more)


def test_an_update_of_rows_is_cut_by_the_seconds_it_takes():
    of_update = specified("2:4", scores="wanda", update="reconstruct")
    plain, updated = cut([planned(4096, 4096)], specified("2:4")), cut([planned(4096, 4096)], of_update)
    assert len(updated) > 4 * len(plain)
    assert all(not shard.is_long and 0 < shard.cost_s <= TARGET_S + OVERHEAD_S for shard in [*plain, *updated])
    assert [shard.first for shard in updated[1:]] == [shard.last for shard in updated[:-1]]
    assert cut([planned(4096, 4096)], of_update) == updated


def test_what_cannot_be_cut_and_takes_long_is_long():
    admm = specified("2:4", scores="wanda", update="admm")
    small, large = cut([planned(64, 64), planned(4096, 4096)], admm)
    assert (small.is_long, large.is_long) == (False, True)
    assert large.cost_s > 60 > TARGET_S > small.cost_s
    (whole,) = cut([planned(4096, 4096)], specified("50%"))
    assert not whole.is_long
    (huge,) = cut([planned(65536, 8192)], specified("50%"))
    assert huge.is_long


def test_a_large_gram_matrix_is_read_for_more_rows_at_a_time():
    """Each shard has to read and scale all of it first."""
    of_update = specified("2:4", update="reconstruct")
    gram = PlannedTensor(name="gram", digest="1" * 64, dtype="F64", shape=[14336, 14336], start=0)
    shards = cut([planned(4096, 14336, gram=gram)], of_update)
    assert 8 < len(shards) < 64
    assert all(shard.is_long for shard in shards)
    assert len(cut([planned(4096, 14336)], of_update)) > 200


@pytest.mark.parametrize("options", [{"update": "admm"}, {"update": "reconstruct"}, {"spectrum": True}])
@pytest.mark.parametrize(("rows", "cols"), [(64, 2048), (2048, 64)])
def test_the_layout_does_not_change_the_seconds_of_the_same_matrices(rows, cols, options):
    """A transposed matrix, and each matrix of a stack, has as many inputs as one that is stored by rows."""
    specification = specified("2:4", **options)

    def seconds(shape, axes=None):
        tensor = PlannedTensor(name="w", digest="0" * 64, dtype="F32", shape=shape, start=0, axes=axes)
        return sum(shard.cost_s - OVERHEAD_S for shard in cut([tensor], specification))

    one = seconds([rows, cols])
    assert seconds([cols, rows], "in out") == pytest.approx(one, abs=1e-4)
    assert seconds([4, rows, cols], "stack out in") == pytest.approx(4 * one, abs=5e-4)
    assert seconds([4, cols, rows], "stack in out") == pytest.approx(4 * one, abs=5e-4)
