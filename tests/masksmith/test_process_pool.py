"""Solvers that run on processes, called from processes that were forked or may not start others."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import multiprocessing, os
import numpy as np
import masksmith as ms

SCORES = np.random.default_rng(0).random((1024, 1024))

def objective(_=None):
    return ms.solve(SCORES, "transposable 4:8", "min-cost-flow", threads=2).objective

if __name__ == "__main__":
    expected = objective()
    {body}
"""

FORKED_CHILD = """
    child = os.fork()
    if child == 0:
        os._exit(0 if objective() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert objective() == expected
    print("done")
"""

DAEMONIC_PROCESS = """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(objective, [None]) == [expected]
    print("done")
"""


def output_of(tmp_path, body: str) -> str:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("    {body}\n", body))
    return subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=120
    ).stdout  # without an answer, the child would wait forever


def test_a_forked_child_does_not_wait_for_the_pool_of_its_parent(tmp_path):
    assert output_of(tmp_path, FORKED_CHILD) == "done\n"


def test_a_daemonic_process_solves_without_other_processes(tmp_path):
    assert output_of(tmp_path, DAEMONIC_PROCESS) == "done\n"
