import io
import json
import struct
import tarfile

import pytest
import safetensors.numpy
from hypothesis import example, given, strategies as st
from hypothesis.extra import numpy as npst
from safetensors import SafetensorError

from masksmith.layouts.foreign_files import BEGINNING_BYTES
from masksmith_wire.headers import (
    DEFAULT_MAX_HEADER_BYTES,
    DTYPE_BITS,
    Header,
    HeaderError,
    HeaderTooLargeError,
    UnknownDtypeError,
    build_header,
    data_bytes,
    header_length,
    parse_header,
    read_header,
    read_header_text,
)

ONE = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def parse_file(data: bytes) -> Header:
    length = header_length(data[:8], limit=len(data))
    return parse_header(data[8 : 8 + length], len(data))


def file_of(document: object, data_bytes: int = 0) -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


def one(**changes: object) -> bytes:
    return file_of({"a": ONE | changes}, 16)


def two(first: list[int], second: list[int], data_bytes: int = 32) -> bytes:
    return file_of({"a": ONE | {"data_offsets": first}, "b": ONE | {"data_offsets": second}}, data_bytes)


DEEP = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
HUGE_NUMBER = b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}'

MALFORMED = {
    "empty": (b"", "0 byte"),
    "shorter than its length": (b"\x10\x00\x00", "3 byte"),
    "length beyond the file": (struct.pack("<Q", 500) + b"{}", "claims 500 bytes"),
    "length beyond any limit": (struct.pack("<Q", 2**63) + b"{}", "claims 9223372036854775808 bytes"),
    "length zero": (struct.pack("<Q", 0) + b"{}", "zeros only"),
    "length one": (struct.pack("<Q", 1) + b"{}", "claims 1 bytes"),
    "a pickle": (b"\x80\x05\x95\x10\x00\x00\x00\x00" + b"." * 64, "a pickle"),
    "a zip": (b"PK\x03\x04" + b"\x14" * 60, "zip archive"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
    "an HTML page": (b"\n<!DOCTYPE html><html>", "an HTML page"),
    "a GGUF file": (b"GGUF\x03\0\0\0" + bytes(64), "a GGUF file"),
    "an HDF5 file": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "JSON": (b'{"error": "not found"}', "JSON text"),
    "no object": (file_of([1]), "'{'"),
    "leading space": (file_of(b" {}"), "'{'"),
    "no JSON": (file_of(b"{oops}"), "is not JSON"),
    "cut JSON": (file_of(b'{"a":'), "is not JSON"),
    "two documents": (file_of(b"{}{}"), "is not JSON"),
    "no UTF-8": (file_of(b'{"\xff":{}}'), "is not JSON"),
    "UTF-16": (file_of("{}".encode("utf-16")), "'{'"),
    "half a surrogate pair": (file_of(rb'{"\ud800":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', 16),
                              r"'\ud800'"),
    "half a pair in the metadata": (file_of(rb'{"__metadata__":{"a":"\udfff"}}'), "below 'a'"),
    "deep nesting": (file_of(DEEP), "is not JSON"),
    "a number of 5000 digits": (file_of(HUGE_NUMBER, 16), "is not JSON"),
    "duplicate names": (file_of(b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}", 16),
                        "names 'a' twice"),
    "duplicate members": (file_of(b'{"a":{"dtype":"F32","dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', 16),
                          "names 'dtype' twice"),
    "NaN": (file_of(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}', 16), "contains NaN"),
    "-Infinity": (file_of(b'{"a":{"dtype":"F32","shape":[-Infinity],"data_offsets":[0,16]}}', 16), "-Infinity"),
    "metadata no map": (file_of({"__metadata__": [1]}), "__metadata__"),
    "metadata not of strings": (file_of({"__metadata__": {"a": 1}}), "__metadata__"),
    "entry no map": (file_of({"a": 3}), "exactly dtype"),
    "entry without dtype": (file_of({"a": {"shape": [], "data_offsets": [0, 0]}}), "exactly dtype"),
    "entry with more": (one(more=1), "exactly dtype"),
    "dtype no string": (one(dtype=["F32"]), "unknown dtype"),
    "shape no list": (one(shape=4), "malformed shape"),
    "negative shape": (one(shape=[-2, -2]), "malformed shape"),
    "bool in the shape": (one(shape=[True, 4]), "malformed shape"),
    "float in the shape": (one(shape=[2.0, 2.0]), "malformed shape"),
    "huge shape": (one(shape=[2**63, 0]), "malformed shape"),
    "17 dimensions": (one(shape=[1] * 17), "malformed shape"),
    "product beyond the data": (one(shape=[2**62, 2**62]), "needs"),
    "shape of other size": (one(shape=[2, 3]), "spans 16 bytes, its shape needs 24"),
    "one offset": (one(data_offsets=[0]), "data_offsets"),
    "three offsets": (one(data_offsets=[0, 8, 16]), "data_offsets"),
    "offsets backwards": (one(data_offsets=[16, 0]), "data_offsets"),
    "negative offset": (one(data_offsets=[-16, 0]), "data_offsets"),
    "overlap": (two([0, 16], [8, 24]), "overlaps"),
    "the same bytes twice": (two([0, 16], [0, 16]), "overlaps"),
    "hole": (two([0, 16], [20, 36], 36), "gap"),
    "hole at the start": (one(data_offsets=[4, 20]) + bytes(4), "gap"),
    "truncated": (one()[:-1], "truncated"),
    "trailing bytes": (one() + b"x", "belong to no tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_and_the_message_says_why(data, message):
    with pytest.raises(HeaderError) as caught:
        parse_file(data)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    str(caught.value).encode()  # it can be sent


@pytest.mark.parametrize("name", ["model.safetensors", "./", "a.p"])
def test_a_tar_archive_is_named_although_its_first_name_may_be_a_length(name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(HeaderError, match="it is a tar archive; extract it with 'tar -xf'"):
        read_header(file)


@pytest.mark.parametrize("dtype", ["F8", "FP8", "f32", "INT4", "", "object"])
def test_an_unknown_dtype_has_an_error_of_its_own(dtype):
    with pytest.raises(UnknownDtypeError, match=f"'a' has unknown dtype {dtype!r}"):
        parse_file(one(dtype=dtype))


def test_metadata_may_be_null():
    assert parse_file(file_of({"__metadata__": None})).metadata == {}


@pytest.mark.parametrize("length", [0x280, 0x120708])
def test_a_cut_file_is_no_pickle_and_no_onnx_model_by_its_length(length):
    with pytest.raises(HeaderError, match="file is truncated: 13 bytes"):
        read_header(io.BytesIO(struct.pack("<Q", length) + b'{"a":'))


def test_lengths_that_begin_like_a_pickle_are_lengths():
    """640 bytes are `80 02 00 ..` in little-endian order, as some pickles begin."""
    assert header_length(struct.pack("<Q", 0x0280)) == 0x0280


def test_length_limit_is_the_callers():
    prefix = struct.pack("<Q", 1000)
    assert header_length(prefix) == 1000
    assert header_length(prefix, limit=1000) == 1000
    with pytest.raises(HeaderError, match="claims 1000 bytes"):
        header_length(prefix, limit=999)
    with pytest.raises(HeaderError):
        header_length(struct.pack("<Q", DEFAULT_MAX_HEADER_BYTES + 1))


def test_offsets_count_from_the_beginning_of_the_file():
    header = parse_file(two([16, 32], [0, 16]))
    assert list(header.tensors) == ["a", "b"]
    length = header_length(two([16, 32], [0, 16]))
    assert (header.tensors["b"].start, header.tensors["b"].stop) == (8 + length, 8 + length + 16)
    assert (header.tensors["a"].start, header.file_bytes) == (8 + length + 16, 8 + length + 32)


def test_fp8_and_fp4_are_known_and_sized():
    document = {
        "a": {"dtype": "F8_E4M3", "shape": [3, 3], "data_offsets": [0, 9]},
        "b": {"dtype": "F4", "shape": [4, 4], "data_offsets": [9, 17]},
    }
    assert [entry.dtype for entry in parse_file(file_of(document, 17)).tensors.values()] == ["F8_E4M3", "F4"]


DTYPES = ["bool", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8", "<c8"]
ARRAYS = npst.arrays(
    dtype=st.sampled_from(DTYPES), shape=npst.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4)
)
NAMES = st.text(max_size=20).filter(lambda name: name != "__metadata__")
TEXTS = st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=3)


@given(st.dictionaries(NAMES, ARRAYS, max_size=5), TEXTS)
def test_files_of_the_safetensors_library_parse_to_what_was_written(arrays, metadata):
    # The library breaks its own format when it has neither tensors nor metadata to write but a map for the latter.
    data = safetensors.numpy.save(arrays, metadata or None)
    header = parse_file(data)
    assert header.metadata == metadata
    assert set(header.tensors) == set(arrays)
    for name, entry in header.tensors.items():
        assert entry.shape == arrays[name].shape
        assert data[entry.start : entry.stop] == arrays[name].tobytes()


def _mutate(data: bytes, cuts: list[tuple[int, bytes]]) -> bytes:
    for at, new in cuts:
        at %= len(data) + 1
        data = data[:at] + new + data[at + 1 :]
    return data


SOUND = safetensors.numpy.save({"a": npst.np.zeros((2, 3), "f4"), "b": npst.np.ones(5, "i1")}, {"format": "pt"})


@given(st.binary(max_size=200))
@example(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
def test_random_bytes_raise_nothing_but_header_errors(data):
    _parses(data)


@given(st.binary(max_size=100))
def test_random_headers_raise_nothing_but_header_errors(text):
    _parses(file_of(b"{" + text))


@given(st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3)), min_size=1, max_size=4))
def test_whatever_parses_after_mutation_is_readable_by_the_library_too(cuts):
    data = _mutate(SOUND, cuts)
    header = _parses(data)
    if header is None:
        return
    try:
        theirs = dict(safetensors.deserialize(data))
    except SafetensorError:
        # The library also wants alignment, and sub-byte types to fill whole bytes; what it refuses, we may know.
        return
    assert {name: tuple(entry["shape"]) for name, entry in theirs.items()} == {
        name: entry.shape for name, entry in header.tensors.items()
    }


def _parses(data: bytes) -> Header | None:
    try:
        return parse_file(data)
    except HeaderError as error:
        str(error).encode()
        return None


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (3, 5)])
def test_a_header_that_is_built_is_read_back(dtype, shape):
    size = data_bytes(dtype, shape)
    data = build_header({"a": (dtype, shape), "b": ("U8", (2,))}, {"note": "x"}) + bytes(size + 2)
    header = read_header(io.BytesIO(data))
    assert (header.tensors["a"].dtype, header.tensors["a"].shape) == (dtype, shape)
    assert header.tensors["a"].stop - header.tensors["a"].start == size
    assert header.tensors["b"].stop == header.file_bytes == len(data)
    assert header.metadata == {"note": "x"}
    assert header.tensors["a"].start % 8 == 0


@pytest.mark.parametrize(
    ("cut", "message"),
    [(4, "takes 8"), (20, "file is truncated: 20 bytes, the header alone takes"), (-1, "file is truncated")],
    ids=["length", "header", "data"],
)
def test_open_files_that_are_cut_are_refused(cut, message):
    data = build_header({"a": ("F32", (4, 4))}) + bytes(64)
    with pytest.raises(HeaderError, match=message):
        read_header(io.BytesIO(data[:cut]))


def test_headers_of_open_files_may_be_larger_than_an_upload_may_send():
    names = {f"{number:0200d}": ("U8", (0,)) for number in range(70_000)}
    data = build_header(names)
    assert len(data) > DEFAULT_MAX_HEADER_BYTES
    assert len(read_header(io.BytesIO(data)).tensors) == len(names)


def test_a_header_is_read_by_ranges_of_which_none_is_longer_than_the_limit():
    data = build_header({"a": ("F32", (4, 4))}) + bytes(64)
    assert len(data) < BEGINNING_BYTES
    ranges = []

    def read(start, stop):
        ranges.append((start, stop))
        return data[start:stop]

    text = read_header_text(read, len(data))
    assert parse_header(text, len(data)).tensors["a"].shape == (4, 4)
    assert ranges == [(0, len(data)), (8, 8 + len(text))]
    ranges.clear()
    with pytest.raises(HeaderTooLargeError, match=f"claims {len(text)} bytes, max_header_bytes is {len(text) - 1}"):
        read_header_text(read, len(data), len(text) - 1)
    assert ranges == [(0, len(data))]


def test_another_format_is_named_even_if_its_first_bytes_are_a_length():
    """Eight bytes of a file that is not safetensors may form a valid length; the ninth is not `{` then."""
    data = struct.pack("<Q", 5000) + b"x"
    with pytest.raises(HeaderError, match=r"does not begin with '\{'"):
        header_length(data, limit=1000)
