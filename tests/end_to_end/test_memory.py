import json
import struct

from support.processes import memory_mib

MIB = 2**20


def pieces(mebibytes, number):
    """Generate a safetensors file on the fly; `number` makes it unlike others."""
    size = mebibytes * MIB
    entry = {"dtype": "F32", "shape": [size // 4096, 1024], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"number": str(number)}, "w": entry}).encode()
    yield struct.pack("<Q", len(text)) + text
    piece = bytes(MIB)
    for _ in range(mebibytes):
        yield piece


def test_the_service_stays_as_small_as_it_was_however_large_the_upload(stack):
    def upload(mebibytes, number):
        # Read, hashed and stored, but nothing is left to solve.
        response = stack.http.post("/v1/masks", params={"pattern": "2:4", "exclude": "w"},
                                   content=pieces(mebibytes, number))  # fmt: skip
        assert response.json()["code"] == "no_tensor_fits"
        return memory_mib(stack.service.pid, "VmHWM")

    for number in range(3):
        small = upload(32, number)
    assert upload(512, 3) - small < 40
