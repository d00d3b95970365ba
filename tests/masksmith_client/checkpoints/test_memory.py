"""`prune` streams: its memory is bounded by the largest tensor, not by the checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
BLOCKS = 30


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import checkpoint

    model, output = tmp_path / "model", tmp_path / "pruned"
    model.mkdir()
    total = checkpoint.write_checkpoint(model, BLOCKS)
    limit = 2**30 + 3 * max(map(checkpoint.size, checkpoint.shapes(BLOCKS).values()))
    assert total > 2 * limit
    command = [Path(sys.executable).with_name("masksmith"), "prune", model, "-p", pattern, "--local"]
    process = subprocess.Popen([*command, "-o", output, "--json"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    for file in model.glob("*.safetensors"):
        assert (output / file.name).stat().st_size == file.stat().st_size
    assert usage.ru_maxrss * 1024 <= limit, f"{usage.ru_maxrss / 1024:.0f} MiB"
