"""Compiled kernels on disk are those of the current sources, of the kernels that they inline too."""

from __future__ import annotations

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
