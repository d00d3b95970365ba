"""Scores in read-only memory, such as those of a mapped file, are solved by the kernels of all other scores."""

import sys

import numpy as np
import pytest

import masksmith as ms

SCORES = np.random.default_rng(0).random((64, 64), np.float32)


def compiled_signatures():
    modules = [module for name, module in sys.modules.items() if name.startswith("masksmith.kernels.")]
    kernels = {value for module in modules for value in vars(module).values() if hasattr(value, "signatures")}
    return {(kernel.py_func.__qualname__, str(signature)) for kernel in kernels for signature in kernel.signatures}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pattern", ["2:4", "4:8", "transposable 2:4", "64:2:8", "block 16x16 50%", "50%"])
def test_no_kernel_is_compiled_again(pattern, dtype, tmp_path):
    np.save(tmp_path / "scores.npy", SCORES.astype(dtype))
    in_memory = ms.solve(SCORES.astype(dtype), pattern)
    before = compiled_signatures()
    mapped = ms.solve(np.load(tmp_path / "scores.npy", mmap_mode="r"), pattern)
    assert compiled_signatures() == before
    assert (mapped.mask == in_memory.mask).all()
    assert mapped.objective == in_memory.objective


def test_the_test_sees_kernels():
    ms.solve(SCORES, "2:4")
    assert any("scan" in name for name, _ in compiled_signatures())
