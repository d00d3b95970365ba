"""Cold start: the first compile says what it is doing, and later processes load from disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import masksmith as ms
from masksmith import _warm_up
from masksmith._warm_up import COMPILING, LATER_PATTERNS, READY_PATTERNS
from masksmith.kernels.jit import LockedCache, locked
from masksmith.kernels.scan import scan

CODE = "import masksmith as ms; ms.warm_up(['50%'])"


def warm_up_in_a_new_process(cache: Path) -> str:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    return done.stderr


def test_the_first_compile_is_announced_and_the_next_process_compiles_nothing(tmp_path: Path) -> None:
    assert warm_up_in_a_new_process(tmp_path).count("compiling kernels") == 1
    assert warm_up_in_a_new_process(tmp_path) == ""


def test_warm_up_reports_each_pattern() -> None:
    steps: list[tuple[str, float]] = []
    total = ms.warm_up(["2:4", "transposable 2:4"], lambda pattern, took_s: steps.append((pattern, took_s)))
    assert [pattern for pattern, _ in steps] == ["2:4", "transposable 2:4"]
    assert 0 < sum(took_s for _, took_s in steps) <= total


def test_warm_up_refuses_what_is_no_pattern() -> None:
    with pytest.raises(ms.PatternError):
        ms.warm_up(["5:4"])


def test_of_two_processes_that_start_at_the_same_time_one_compiles(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "masksmith._warm_up", "50%"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = sorted(sorted(process.communicate()[0].split()) for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert lines == [["1/1"], ["1/1", COMPILING]]


COMPILED_NAMES = """
import numba.core.event, numpy as np, masksmith as ms

class Listener(numba.core.event.Listener):
    def on_start(self, event):
        kernel = event.data["dispatcher"].py_func
        if kernel.__module__.startswith("masksmith"):
            print(kernel.__qualname__, event.data["args"])
    def on_end(self, event):
        pass

numba.core.event.register("numba:compile", Listener())
ms.solve(np.ones((8, 8)), "3:4")
"""


@pytest.mark.slow
def test_no_kernel_is_compiled_by_two_processes(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COMPILED_NAMES]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    compiled = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in processes] == [0] * 3
    assert compiled
    assert len(compiled) == len(set(compiled))


@pytest.mark.slow
def test_another_process_compiles_the_shortest_paths_at_the_same_time(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "masksmith._warm_up", "transposable 2:4"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == [COMPILING, "1/2", "2/2"]
    assert list(tmp_path.rglob("panel.solve_panel-*.nbc"))


def test_kernels_are_saved_under_a_lock() -> None:
    assert isinstance(scan._cache, LockedCache)  # type: ignore[attr-defined]


def test_a_lock_excludes_other_processes_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lock"
    imports = "from pathlib import Path; from masksmith.kernels.jit import locked"
    code = f"{imports}\nprint('ready', flush=True)\nwith locked(Path({str(path)!r})): pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        with locked(path):
            assert other.stdout is not None
            assert other.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(1)
        assert other.wait(300) == 0


@pytest.mark.parametrize("pattern", [*READY_PATTERNS, *LATER_PATTERNS])
def test_patterns_are_in_their_canonical_spelling(pattern: str) -> None:
    assert str(ms.parse(pattern)) == pattern


@pytest.mark.parametrize(("cores", "second_process"), [(1, False), (2, True)])
def test_a_second_process_compiles_where_this_one_may_run_on_several_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, second_process: bool
) -> None:
    used: list[bool] = []
    monkeypatch.setattr(_warm_up, "available_cores", lambda: cores)
    monkeypatch.setattr(_warm_up.os, "cpu_count", lambda: 64 // cores)
    monkeypatch.setattr(_warm_up, "_cache_folder", lambda: tmp_path)
    monkeypatch.setattr(_warm_up, "_run", lambda steps: used.append(False))
    monkeypatch.setattr(_warm_up, "_warm_up_with_two_processes", lambda patterns: used.append(True))
    _warm_up.main(["2:4"])
    assert used == [second_process]
