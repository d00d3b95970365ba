import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as npst

from masksmith_wire.headers import header_length, parse_header
from masksmith_wire.json_text import DuplicateMemberError
from masksmith_wire.masks import METADATA_KEY, MaskInfo, file_header, pack, packed_width, read_infos, unpack

MASKS = npst.arrays(bool, npst.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=19))
NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__")


@given(MASKS)
def test_unpack_undoes_pack_at_one_bit_an_entry(mask):
    packed = pack(mask)
    assert packed.dtype == np.uint8
    assert packed.shape == (*mask.shape[:-1], packed_width(mask.shape))
    found = unpack(packed, mask.shape)
    assert found.dtype == np.bool_
    assert (found == mask).all()


def test_first_entry_is_the_lowest_bit_and_unused_bits_are_0():
    mask = np.array([[True, False, True, True, False, False, False, False, True]])
    assert pack(mask).tolist() == [[0b1101, 1]]
    assert pack(np.ones((2, 3), bool)).tolist() == [[7], [7]]


@given(st.dictionaries(NAMES, MASKS, max_size=4), st.booleans())
def test_header_and_masks_make_a_file_that_the_safetensors_library_reads(masks, as_bool):
    infos = {
        name: MaskInfo(shape=list(mask.shape), pattern="2:4", ragged="dense", axis="out")
        for name, mask in masks.items()
    }
    header = file_header(infos, as_bool=as_bool)
    data = header + b"".join((mask if as_bool else pack(mask)).tobytes() for mask in masks.values())
    assert len(header) % 8 == 0
    parsed = parse_header(data[8 : 8 + header_length(data)], len(data))
    assert read_infos(parsed.metadata) == infos
    for name, found in safetensors.numpy.load(data).items():
        assert ((found if as_bool else unpack(found, masks[name].shape)) == masks[name]).all()


def test_header_is_exact():
    header = file_header({"w": MaskInfo(shape=[4, 10], pattern="2:4")})
    (length,) = struct.unpack("<Q", header[:8])
    assert json.loads(header[8:]) == {
        "__metadata__": {"masksmith": '{"w": {"shape": [4, 10], "pattern": "2:4", "ragged": "pad", "axis": "in"}}'},
        "w": {"dtype": "U8", "shape": [4, 2], "data_offsets": [0, 8]},
    }
    assert length == len(header) - 8


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {METADATA_KEY: "[]"}, {METADATA_KEY: "{"},
                                      {METADATA_KEY: '{"w": {"shape": "x"}}'}])  # fmt: skip
def test_metadata_that_is_not_a_masks_file_is_refused(metadata):
    with pytest.raises(ValueError, match=r"masks file|Expecting|validation error"):
        read_infos(metadata)


@pytest.mark.parametrize("size", [3, 5])
def test_a_packed_mask_of_another_size_is_a_violation(size):
    info = MaskInfo(shape=[4, 8], pattern="2:4", digests=[(4, "0" * 64)])
    violation = info.digest_violation("w", np.zeros(size, np.uint8))
    assert violation == f"the packed mask of 'w' has {size} bytes, and its shape [4, 8] needs 4"


@pytest.mark.parametrize(("shape", "size"), [([0, 8], 0), ([8, 0], 0), ([8], 1), ([], 1)])
def test_digests_of_rows_that_are_not_there_are_a_violation(shape, size):
    info = MaskInfo(shape=shape, pattern="2:4", digests=[(max([*shape[:1], 1]), "0" * 64)])
    violation = info.digest_violation("w", np.zeros(size, np.uint8))
    assert violation == f"'w' has digests of rows, and its shape {shape} has no rows"


def test_deeply_nested_metadata_is_not_that_of_masks():
    with pytest.raises(ValueError, match="nested too deeply"):
        read_infos({METADATA_KEY: "[" * 100_000 + "]" * 100_000})


def test_a_mask_or_a_property_of_one_that_is_listed_twice_is_refused():
    info = '{"shape": [4, 8], "pattern": "2:4"}'
    with pytest.raises(DuplicateMemberError, match="'w' is given twice"):
        read_infos({METADATA_KEY: f'{{"w": {info}, "w": {info}}}'})
    with pytest.raises(DuplicateMemberError, match="'shape' is given twice"):
        read_infos({METADATA_KEY: '{"w": {"shape": [8, 4], "shape": [4, 8], "pattern": "2:4"}}'})
