"""Kernels compile for a real device, which needs no device: numba turns them into its assembly."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from numba import cuda, types
from numba.cuda import dispatcher

import masksmith as ms
from masksmith.cuda.certificate.tiles import compile_certificate
from masksmith.cuda.dual_ascent.integer_pass import compile_integer_pass
from masksmith.cuda.dual_ascent.shape import TIE_PASS_BYTES, shape_of
from masksmith.cuda.dual_ascent.tie_pass import compile_tie_pass
from masksmith.cuda.shortest_paths.panel import compile_path_kernel

HOPPER = (9, 0)
SHARED_BYTES = 48 * 1024
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


@pytest.mark.parametrize("pattern", ["transposable <=8:16", pytest.param("transposable 4:8", marks=pytest.mark.slow)])
def test_waves_for_ties_stay_there_too(assemble, pattern):
    shape = shape_of(ms.parse(pattern).tile, "float32", TIE_PASS_BYTES)
    code = assemble(
        compile_tie_pass(shape), ELEMENTS["float32"], NUMBER, NUMBER, NUMBER, NUMBER, types.int32[::1], FLAG,
        *[NUMBERS] * 4, MASK, DUALS, DUALS, CODES, NUMBERS, NUMBERS, NUMBERS,
    )  # fmt: skip
    assert ".local" not in code


@pytest.mark.parametrize("pattern", [f"transposable {m // 2}:{m}" for m in (4, 8, 16, 32, 64)])
def test_a_block_fits_the_shared_memory_that_every_device_has(pattern):
    tile = ms.parse(pattern).tile
    for space, words, doubles in (("sweeps", 2, 1), ("ties", 6, 2)):
        shape = shape_of(tile, "float64", *([TIE_PASS_BYTES] if space == "ties" else []))
        threads = shape.lanes * shape.lines
        used = 4 * shape.places * shape.lanes + 4 * words * threads + 8 * doubles * threads + 16 * shape.lanes
        assert used <= SHARED_BYTES
        assert threads <= 1024


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
