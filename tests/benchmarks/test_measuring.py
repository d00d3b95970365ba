"""A page names the commit that was measured, and says if files differ from it."""

import subprocess
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """The module, in a repository with one commit."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import measuring

    for name in ("solver", "client", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    who = ["-c", "user.name=name", "-c", "user.email=mail@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "--no-verify", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(measuring, "ROOT", tmp_path)
    return measuring


@pytest.mark.parametrize(("changed", "is_marked"), [("solver/file", True), ("client/new", True), ("docs/file", False)])
def test_a_change_of_what_is_measured_is_named(measuring, tmp_path, changed, is_marked):
    clean = measuring.commit()
    assert len(clean) >= 4
    assert clean.isalnum()
    (tmp_path / changed).write_text("after")
    assert measuring.commit() == clean + ("+changes" if is_marked else "")


def test_without_git_the_commit_is_unknown(measuring, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert measuring.commit() == "unknown"


def test_outside_of_a_repository_the_commit_is_unknown(measuring, tmp_path, monkeypatch):
    (tmp_path / ".git").rename(tmp_path / "other")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert measuring.commit() == "unknown"


def test_what_is_measured_exists(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import measuring

    assert all((measuring.ROOT / name).exists() for name in measuring.MEASURED)


def test_a_tile_that_ortools_does_not_solve_is_not_timed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import min_cost_flow
    import numpy as np

    import masksmith as ms

    solve = min_cost_flow.ortools_alone(np.ones((8, 8), np.float32), ms.parse("transposable 2:4").tile)
    assert solve() == 4 * 16
    monkeypatch.setattr(min_cost_flow.SimpleMinCostFlow, "solve", lambda flow: flow.INFEASIBLE)
    with pytest.raises(RuntimeError, match="OR-Tools does not solve tile 0"):
        solve()
