"""Float32 products are in float32 during a case, and torch is as it was after it, whichever interface was used."""

import subprocess
import sys

import pytest

# Each setting is made in a child process: what one interface has set, the other cannot unset.
SCRIPT = """
import os, torch
from masksmith.benchmark import benchmark
from masksmith.benchmark.machine import describe
from masksmith._torch_modes import in_full_precision

READERS = {
    "precision": torch.get_float32_matmul_precision,
    "allow": lambda: torch.backends.cuda.matmul.allow_tf32,
    "cuda": lambda: torch.backends.cuda.matmul.fp32_precision,
    "cpu": lambda: torch.backends.mkldnn.matmul.fp32_precision,
    "all": lambda: torch.backends.fp32_precision,
    "described": lambda: describe("cpu", 1)["tf32"],
}


def state():
    values = {}
    for name, read in READERS.items():
        try:
            values[name] = read()
        except RuntimeError:
            values[name] = "mixed"
    return values


def check(setting, is_tf32):
    exec(setting)
    before = state()
    assert before["described"] is is_tf32, before
    with in_full_precision():
        within = state()
    assert state() == before, (state(), before)
    assert within["precision"] == "highest" and not within["allow"] and not within["described"], within
    for name in ("cuda", "cpu"):  # "none" is the value of `all`
        assert "ieee" in (within[name], within["all"]) or within[name] == within["all"] == "none", within
        assert within[name] in ("ieee", "none"), within
    report = benchmark("32x64", "2:4", batches=[4], curves=False, rounds=1, kernels=["dense"], masks={"32x64": MASK})
    assert not report.failures, report.failures
    assert report.results[0].machine["tf32"] is False
    assert state() == before, (state(), before)


MASK = torch.tensor([True, True, False, False] * 16).expand(32, 64).numpy()
for setting, is_tf32 in (
    ("", False),
    ("torch.set_float32_matmul_precision('medium')", True),
    ("torch.set_float32_matmul_precision('high')", True),
    ("torch.backends.cuda.matmul.allow_tf32 = True", True),
    ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", True),
    ("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'", False),
    ("torch.backends.fp32_precision = 'tf32'", True),
):
    child = os.fork()
    if not child:
        check(setting, is_tf32)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, setting
"""


@pytest.mark.torch
def test_the_precision_is_full_and_restored():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
