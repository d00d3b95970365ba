"""Kernels of frequent patterns are compiled before a worker is ready, and progress is counted."""

import pytest

from masksmith._warm_up import is_warm
from masksmith_worker import kernels


def test_progress_is_counted_only_if_kernels_are_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "READY_PATTERNS", ("50%", "25%"))
    # Its folder is that of this process, whose environment was another one when it started.
    monkeypatch.setattr(kernels, "is_warm", lambda patterns: False)
    lines = []
    kernels.prepare_kernels(lines.append)
    text = "compiling kernels, once for this machine"
    assert lines == [text, f"{text}: 1 of 2", f"{text}: 2 of 2"]
    kernels.prepare_kernels(lines.append)
    assert len(lines) == 3


def test_a_warm_start_compiles_nothing(monkeypatch):
    monkeypatch.setattr(kernels, "READY_PATTERNS", ("2:4",))
    kernels.prepare_kernels(lambda line: None)
    assert is_warm(["2:4"])
    assert not is_warm(["2:4", "1:1"])
    monkeypatch.setattr(kernels, "WARM_UP", ("false",))
    kernels.prepare_kernels(lambda line: None)


def test_a_failed_compilation_ends_the_start(monkeypatch):
    monkeypatch.setattr(kernels, "READY_PATTERNS", ("5:4",))
    with pytest.raises(RuntimeError, match="failed with exit code 1"):
        kernels.prepare_kernels(lambda line: None)


def test_later_patterns_are_compiled_once(monkeypatch):
    monkeypatch.setattr(kernels, "LATER_PATTERNS", ("2:4", "1:4"))
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "is_warm", lambda patterns: False)
        assert kernels.start_compiling_others().wait(120) == 0
    assert kernels.start_compiling_others() is None
