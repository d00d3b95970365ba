"""Progress of workers that are not ready yet."""

from masksmith_state.jobs.records import JobRecords


def test_lines_are_kept_until_the_worker_is_ready(records: JobRecords) -> None:
    progress = records.start_progress
    assert progress.first_line() is None
    progress.report("b", "the worker is starting")
    progress.report("a", "compiling kernels: 1 of 2")
    progress.report("a", "compiling kernels: 2 of 2")
    assert progress.first_line() == "compiling kernels: 2 of 2"
    progress.clear("a")
    assert progress.first_line() == "the worker is starting"
    progress.clear("b")
    assert progress.first_line() is None


def test_lines_of_a_worker_that_died_expire(records: JobRecords) -> None:
    records.start_progress.report("a", "compiling kernels")
    assert 0 < records.redis.ttl("masksmith:starting") <= 120
