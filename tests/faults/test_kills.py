"""Each part is killed in the middle of a job of many tensors, at random moments: nothing is lost, no bit differs."""

import random
import time

import pytest
from support.fleet import bits, seconds_until, submit
from support.processes import children_of, is_alive


def kill_child(fleet, job, rng):
    """The process in which a shard is being solved."""
    held = fleet.held(job)
    fleet.kill_child(rng.choice(fleet.workers))
    return lambda: not held & fleet.pending(job)


def kill_worker(fleet, job, rng):
    """A worker, which takes its pool along and is started again."""
    held = fleet.held(job)
    worker = rng.choice(fleet.workers)
    family = children_of(worker.process.pid)
    worker.kill()
    worker.start()
    return lambda: not held & fleet.pending(job) and not any(map(is_alive, family))


def kill_service(fleet, job, rng):
    """The service through which the job came."""
    fleet.services[0].kill()
    fleet.services[0].start()
    return lambda: fleet.serves(fleet.services[0])


def kill_broker(fleet, job, rng):
    """The broker, which starts again from its append-only file."""
    before = fleet.done(job)
    fleet.kill_broker()
    return lambda: fleet.done(job) > before


KILLS = {
    "worker child": kill_child,
    "worker": kill_worker,
    "service": kill_service,
    "broker": kill_broker,
}
SHORT = [pytest.param("worker", 1, id="worker-1")]
LONG = [pytest.param(name, 20, id=f"{name}-20", marks=pytest.mark.slow) for name in KILLS]


@pytest.mark.parametrize(("part", "times"), SHORT + LONG)
def test_a_job_outlives_a_kill_at_any_moment(fleet, weights, undisturbed, table, part, times):
    rng = random.Random(f"{part} {times}")
    row = table[f"SIGKILL of {part}"]
    for _ in range(times):
        fleet.await_all()
        fleet.forget_results()
        with fleet.client() as client:
            job = submit(client, weights)
            total = job.document.progress.total
            fleet.await_done(job.id, rng.randrange(1, total * 3 // 4))
            time.sleep(rng.random() * 0.05)
            recovered = KILLS[part](fleet, job.id, rng)
            seconds = seconds_until(recovered)
            found = bits(job)
        lost = int(job.document.state != "succeeded" or found != undisturbed)
        row.add(seconds, lost)
        assert not lost
        assert job.document.progress.done == job.document.progress.total == total
