"""Kernels compile for a real device, which needs no device: numba turns them into its assembly."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
from cuda.bindings import nvjitlink
from numba import cuda, types
from numba.cuda import dispatcher

import masksmith as ms
from masksmith.cuda.certificate.tiles import compile_certificate
from masksmith.cuda.dual_ascent.integer_pass import compile_integer_pass
from masksmith.cuda.dual_ascent.shape import INTEGER_PASS, TIE_PASS, shape_of
from masksmith.cuda.dual_ascent.tie_pass import compile_tie_pass
from masksmith.cuda.shortest_paths.panel import compile_path_kernel
from masksmith.patterns import TileSpec

HOPPER = (9, 0)
SHARED_BYTES = 48 * 1024
THREADS, REGISTERS = 1024, 65_536
"""Of a thread block, on every device."""
SIDES = (4, 8, 16, 32, 64)
FLAG, NUMBER = types.boolean, types.int64
NUMBERS, CODES = types.int64[::1], types.uint8[::1]
MASK, DUALS = types.uint8[:, ::1], types.float64[:, ::1]
ELEMENTS = {
    "float32": types.Array(types.float32, 2, "A"),
    "float64": types.Array(types.float64, 2, "A"),
    "bfloat16": types.Array(types.int16, 2, "A"),
}


@pytest.fixture
def assemble(monkeypatch):
    """Compile a kernel for a device that is only named."""
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=HOPPER))

    def run(kernel, *signature):
        return cuda.compile_ptx(kernel.py_func, signature, cc=HOPPER)[0]

    return run


@pytest.mark.parametrize(
    ("pattern", "element"),
    [
        ("transposable 8:16", "float32"),
        ("transposable <=4:8", "bfloat16"),
        pytest.param("transposable 2:4", "float64", marks=pytest.mark.slow),
        pytest.param("transposable 3:12", "float32", marks=pytest.mark.slow),
        pytest.param("transposable 32:64", "float32", marks=pytest.mark.slow),
        pytest.param("transposable 1:4 x 16:64", "float32", marks=pytest.mark.slow),
        pytest.param("transposable 8:16 x 2:4", "float32", marks=pytest.mark.slow),
        pytest.param("transposable 4:16 x 2:8", "float32", marks=pytest.mark.slow),
    ],
)
def test_sweeps_stay_in_registers_and_shared_memory(assemble, pattern, element):
    shape = shape_of(ms.parse(pattern).tile, element)
    chain = [NUMBERS] * 4
    code = assemble(
        compile_integer_pass(shape), ELEMENTS[element], NUMBER, NUMBER, FLAG, FLAG, *chain, MASK, DUALS, DUALS, NUMBERS
    )  # fmt: skip
    assert ".local" not in code
    assert code.count("bar.sync") >= 6
    assert shared_bytes_of(code) == shape.shared_bytes(INTEGER_PASS)
    assert registers_of(code) * shape.lanes * shape.lines <= REGISTERS


@pytest.mark.parametrize(
    "pattern",
    [
        "transposable <=8:16",
        *(pytest.param(pattern, marks=pytest.mark.slow) for pattern in ("transposable 4:8", "transposable 8:16 x 2:4")),
    ],
)
def test_waves_for_ties_stay_there_too(assemble, pattern):
    shape = shape_of(ms.parse(pattern).tile, "float32", TIE_PASS)
    code = assemble(
        compile_tie_pass(shape), ELEMENTS["float32"], NUMBER, NUMBER, NUMBER, NUMBER, types.int32[::1], FLAG,
        *[NUMBERS] * 4, MASK, DUALS, DUALS, CODES, NUMBERS, NUMBERS, NUMBERS,
    )  # fmt: skip
    assert ".local" not in code
    assert shared_bytes_of(code) == shape.shared_bytes(TIE_PASS)
    assert registers_of(code) * shape.lanes * shape.lines <= REGISTERS


def shared_bytes_of(code):
    return sum(int(size) for size in re.findall(r"\.shared [^;]*\[(\d+)\];", code))


def registers_of(code):
    """Assemble for the device; gives the registers of a thread."""
    link = nvjitlink.create(2, [f"-arch=sm_{HOPPER[0]}{HOPPER[1]}", "-verbose"])
    nvjitlink.add_data(link, nvjitlink.InputType.PTX, code.encode(), len(code), "kernel")
    nvjitlink.complete(link)
    log = bytearray(nvjitlink.get_info_log_size(link))
    nvjitlink.get_info_log(link, log)
    return max(int(count) for count in re.findall(rb"[Uu]sed (\d+) registers", log))


@pytest.mark.parametrize("columns", SIDES)
@pytest.mark.parametrize("rows", SIDES)
def test_a_block_fits_the_shared_memory_and_threads_that_every_device_has(rows, columns):
    for memory in (INTEGER_PASS, TIE_PASS):
        shape = shape_of(TileSpec(rows, columns, columns // 2, rows // 2, False), "float64", memory)
        assert shape.shared_bytes(memory) <= SHARED_BYTES
        assert shape.lanes * shape.lines <= THREADS
        # Largest number of registers that was seen.
        assert 96 * shape.lanes * shape.lines <= REGISTERS


def test_the_lanes_of_square_tiles_are_as_they_were_measured():
    sizes = [TileSpec(side, side, side // 2, side // 2, False) for side in SIDES]
    assert [shape_of(tile, "float32").lanes for tile in sizes] == [64, 64, 32, 8, 2]
    assert [shape_of(tile, "float32", TIE_PASS).lanes for tile in sizes] == [64, 64, 16, 4, 1]


def test_the_checker_compiles(assemble):
    code = assemble(
        compile_certificate("bfloat16"), ELEMENTS["bfloat16"], MASK, MASK, NUMBER, NUMBER, NUMBER, NUMBER, FLAG, DUALS,
        DUALS, NUMBER, types.float64[::1], types.float64[::1], types.float64[::1], CODES,
        types.int16[:, ::1], types.int16[:, ::1], MASK,
    )  # fmt: skip
    assert ".entry" in code
    assert ".local" not in code


@pytest.mark.slow
def test_shortest_paths_compile(assemble):
    code = assemble(
        compile_path_kernel("float32"), ELEMENTS["float32"], NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, FLAG, MASK,
        NUMBERS, CODES, MASK, DUALS, DUALS, DUALS, types.int64[:, ::1], MASK, NUMBERS,
    )  # fmt: skip
    assert ".entry" in code
