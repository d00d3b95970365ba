"""Forged safetensors files, straight into the parser: each is refused with a reason or understood as it must be."""

import random
import resource

import pytest
import safetensors
from support.forgery import Forger

from masksmith_wire.headers import DTYPE_BITS, PREFIX_BYTES, HeaderError, header_length, parse_header

BATCHES = [pytest.param(5_000, id="5000"), pytest.param(100_000, id="100000", marks=pytest.mark.slow)]


def parse(data):
    end = PREFIX_BYTES + header_length(data[:PREFIX_BYTES])
    if len(data) < end:
        raise HeaderError("the file ends inside of its header")
    return parse_header(data[PREFIX_BYTES:end], len(data))


def check_understood(data, header):
    """Entries cover the data without hole or overlap, and the safetensors library sees the same, if it sees any."""
    end = PREFIX_BYTES + header_length(data[:PREFIX_BYTES])
    for entry in sorted(header.tensors.values(), key=lambda entry: (entry.start, entry.stop)):
        assert entry.start == end
        assert entry.dtype in DTYPE_BITS
        entry.name.encode()
        end = entry.stop
    assert end == len(data) == header.file_bytes
    try:
        theirs = dict(safetensors.deserialize(data))
    except safetensors.SafetensorError:
        return
    assert {name: tuple(entry["shape"]) for name, entry in theirs.items()} == {
        name: entry.shape for name, entry in header.tensors.items()
    }


def check(data):
    """Gives why a file was refused, or None."""
    try:
        header = parse(data)
    except HeaderError as error:
        return str(error)
    check_understood(data, header)
    return None


def resident_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("count", BATCHES)
def test_forged_files_are_refused_or_understood(count):
    forger, refused = Forger(random.Random(count)), 0
    for number in range(count):
        data, sound = forger.file()
        reason = check(data)
        assert not (sound and reason), (number, data)
        assert reason is None or len(reason.encode()) < 1000
        refused += reason is not None
        if number == count // 10:
            before = resident_mib()
    assert count * 0.3 < refused < count * 0.8
    assert resident_mib() - before < 32
