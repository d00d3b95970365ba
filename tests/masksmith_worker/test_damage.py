"""A flipped byte in a blob of each kind: results are computed again, uploads must be sent again."""

from pathlib import Path

import numpy as np
import pytest
from support.leases import run_shard
from support.shards import WEIGHT, mask_of, run_all

import masksmith as ms

PATTERN = "2:4"


def flip(store, folder, at=5, suffix=""):
    """Flip a byte in every blob of a folder."""
    paths = [path for path in (Path(store.url) / folder).rglob("*") if path.is_file() and path.suffix == suffix]
    assert paths
    for path in paths:
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)


def reports_of(runner, job):
    return list(runner.records.reports(job).values())


@pytest.mark.parametrize(("folder", "suffix"), [("masks", ""), ("masks", ".json")])
def test_a_damaged_result_is_solved_again(runner, submit, store, solves, folder, suffix):
    run_all(runner, submit({"w": WEIGHT}, PATTERN))
    flip(store, folder, suffix=suffix)
    again = submit({"w": WEIGHT}, PATTERN)
    run_all(runner, again)
    assert len(solves) == 2
    assert not reports_of(runner, again)[0].remembered
    run_all(runner, third := submit({"w": WEIGHT}, PATTERN))
    assert reports_of(runner, third)[0].remembered
    assert len(solves) == 2
    assert (mask_of(runner, third) == ms.solve(np.abs(WEIGHT), PATTERN).mask).all()


def test_a_damaged_list_of_an_intact_result_is_written_again(runner, submit, store, solves):
    run_all(runner, submit({"w": WEIGHT}, PATTERN))
    flip(store, "pieces/masks")
    run_all(runner, again := submit({"w": WEIGHT}, PATTERN))
    assert reports_of(runner, again)[0].remembered
    assert len(solves) == 1


@pytest.mark.parametrize("at", [9, -1])
def test_a_damaged_upload_is_never_solved(runner, submit, store, solves, at):
    job = submit({"w": WEIGHT}, PATTERN)
    flip(store, "tensors", at)
    assert run_all(runner, job) == ["completed"]
    assert reports_of(runner, job)[0].error.code == "upload_damaged"
    assert not solves
    again = submit({"w": WEIGHT}, PATTERN)
    run_all(runner, again)
    assert reports_of(runner, again)[0].error is None


def test_a_damaged_statistic_is_computed_again(runner, submit, store, solves):
    run_all(runner, first := submit({"w": WEIGHT}, PATTERN, scores="ria"))
    flip(store, "statistics")
    # Another pattern, so that the scores are computed again.
    run_all(runner, submit({"w": WEIGHT}, "1:4", scores="ria"))
    flip(store, "masks")
    run_all(runner, again := submit({"w": WEIGHT}, PATTERN, scores="ria"))
    assert reports_of(runner, again)[0].objective == reports_of(runner, first)[0].objective
    assert sum("statistics" in name for name, _ in store.list_damaged()) == 1


def test_a_panic_of_a_native_library_fails_the_attempt(runner_with, submit, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(*_):
        raise PanicException("index out of bounds")

    runner, job = runner_with(attempts=1), submit({"w": WEIGHT}, PATTERN)
    monkeypatch.setattr("masksmith_worker.runner.score_shard", panic)
    with pytest.raises(RuntimeError, match="panicked: index out of bounds"):
        run_shard(runner, job, 0)
    assert reports_of(runner, job)[0].error.code == "internal"
