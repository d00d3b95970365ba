"""Compiled kernels on disk are those of the current sources, of the kernels that they inline too."""

from __future__ import annotations

import errno
import fcntl
from types import SimpleNamespace

import pytest

from masksmith.kernels import jit
from masksmith.kernels.scan import scan


@pytest.fixture
def digest_cache():
    jit.sources_digest.cache_clear()
    yield
    jit.sources_digest.cache_clear()


def test_a_change_of_any_kernel_invalidates_the_cache(monkeypatch, tmp_path, digest_cache):
    before = jit.LockedCache(scan.py_func)._cache_file._source_stamp
    (tmp_path / "simd").mkdir()
    (tmp_path / "simd" / "lanes.py").write_text("first")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    stamps = [before]
    for text in ("first", "second"):
        (tmp_path / "simd" / "lanes.py").write_text(text)
        jit.sources_digest.cache_clear()
        stamps.append(jit.LockedCache(scan.py_func)._cache_file._source_stamp)
    assert len(set(stamps)) == 3


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_kernels_are_compiled_without_a_lock_where_the_file_system_has_none(monkeypatch, tmp_path, number):
    def refuse(file, operation):
        raise OSError(number, "refused")

    monkeypatch.setattr(jit, "fcntl", SimpleNamespace(flock=refuse, LOCK_EX=fcntl.LOCK_EX))
    entered = []
    if number == errno.EIO:
        with pytest.raises(OSError, match="refused"), jit.locked(tmp_path / "lock"):
            entered.append(True)
        assert not entered
    else:
        with jit.locked(tmp_path / "lock"):
            entered.append(True)
        assert entered


def test_callbacks_of_compilations_are_called_once_and_kept_no_longer_than_they_are_needed(monkeypatch):
    logger, called = jit._CompilationLogger(), []
    monkeypatch.setattr(jit, "_LOGGER", logger)
    event = SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=scan.py_func)})
    with jit.on_first_compilation(lambda: called.append("too early")):
        assert len(logger.callbacks) == 1
    with jit.on_first_compilation(lambda: called.append("first")):
        logger.on_start(event)
        assert not logger.callbacks
    with jit.on_first_compilation(lambda: called.append("too late")):
        logger.on_start(event)
        assert not logger.callbacks
    assert called == ["first"]
