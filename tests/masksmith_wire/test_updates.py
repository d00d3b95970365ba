"""The grammar of update methods."""

import numpy as np
import pytest
import safetensors.numpy
from support.shards import specified

from masksmith_state.jobs.shards import PlannedTensor, Shard, cut, result_key
from masksmith_wire.documents import MasksOptions
from masksmith_wire.dtypes import to_bytes, to_numpy
from masksmith_wire.headers import build_header
from masksmith_wire.updates import UpdateMethod


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("reconstruct", "reconstruct"),
        ("  reconstruct   damping=1e-1 ", "reconstruct damping=0.1"),
        ("admm penalty=.5 damping=0 max_rounds=20", "admm damping=0 max_rounds=20 penalty=0.5"),
    ],
)
def test_an_update_has_one_spelling(text, canonical):
    assert str(UpdateMethod.parse(text)) == canonical
    assert UpdateMethod.parse(canonical) == UpdateMethod.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with one of the updates reconstruct, admm"),
        ("adam", "does not begin with one of the updates reconstruct, admm"),
        ("reconstruct penalty=1", r"has no option 'penalty' \(it has: damping\)"),
        ("reconstruct damping=1 damping=2", "damping is set twice"),
        ("reconstruct damping=-1", "damping='-1' is not a number of at least 0"),
        ("reconstruct damping=nan", "damping='nan' is not"),
        ("admm penalty=0", "penalty='0' is not a positive number"),
        ("admm max_rounds=1.5", "max_rounds='1.5' is not a whole number"),
        ("admm max_rounds=99999", "is not a whole number from 1 to 10000"),
    ],
)
def test_an_unknown_update_is_rejected_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        UpdateMethod.parse(text)
    with pytest.raises(ValueError, match=message):
        MasksOptions(pattern="2:4", update=text)


def test_admm_sees_whole_tensors_and_results_are_told_apart():
    tensor = PlannedTensor(name="a", digest="0" * 64, dtype="F32", shape=[64, 16], start=0)
    assert len(cut([tensor], specified("2:4", update="reconstruct"), 512)) == 8
    (whole,) = cut([tensor], specified("2:4", update="admm"), 512)
    assert (whole.tensor, whole.first, whole.last) == (0, 0, 64)
    shard = Shard(tensor=0, first=0, last=64)
    keys = {
        result_key(tensor, shard, specified("2:4", update=update), "exact", 1)
        for update in (None, "reconstruct", "reconstruct damping=0.1", "admm")
    }
    assert len(keys) == 4


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_bytes_come_back(dtype):
    values = np.array([[0.5, -1.25, 3.0], [0.0, 1e-3, -7.5]]).astype({"F64": "f8", "F16": "f2"}.get(dtype, "f4"))
    data = to_bytes(to_numpy(to_bytes(values, dtype), dtype, (2, 3)), dtype)
    assert data == to_bytes(values, dtype)
    if dtype != "BF16":
        np.testing.assert_array_equal(to_numpy(data, dtype, (2, 3)), values)


def test_the_header_is_one_that_safetensors_reads():
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((4,), np.float16)}
    header = build_header({"a": ("F32", [2, 3]), "b": ("F16", [4])}, {"note": "x"})
    found = safetensors.numpy.load(header + b"".join(array.tobytes() for array in arrays.values()))
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
