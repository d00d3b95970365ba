"""A shard that kills whoever touches it, and orderly stops."""

import numpy as np
import pytest
from support.fleet import bits, submit

from masksmith_client import JobFailedError

POISON = np.frombuffer(bytes.fromhex("0defaced"), np.float32)[0]


def test_a_shard_that_kills_its_worker_fails_alone(fleet, weights, undisturbed, table):
    good = {name: weights[name] for name in ("layer00", "layer01")}
    poisoned = weights["layer02"].copy()
    poisoned[0, 0] = POISON
    with fleet.client() as client:
        others = submit(client, weights)
        job = submit(client, good | {"poisoned": poisoned})
        with pytest.raises(JobFailedError, match="poisoned"):
            job.wait(600)
        reports = {report.name: report for report in job.refresh().document.tensors}
        assert reports["poisoned"].error.code == "attempts_exhausted"
        assert "3 times" in reports["poisoned"].error.message
        masks = job.masks()
        found = bits(others)
    assert set(masks) == set(good)
    assert all(masks[name].tobytes() == undisturbed[name] for name in good)
    table["a shard that kills its worker"].add(lost=int(found != undisturbed))
    assert found == undisturbed
    assert all(worker.runs for worker in fleet.workers)


@pytest.mark.slow
def test_a_worker_that_is_stopped_during_a_job_drains(fleet, weights, undisturbed, table):
    worker, service = fleet.workers[0], fleet.services[0]
    with fleet.client(0) as client:
        job = submit(client, weights)
        fleet.await_done(job.id, 5)
        assert worker.stop()
        attempts = fleet.redis.hgetall(f"masksmith:job:{job.id}:attempts")
        waiting = fleet.pending(job.id) - fleet.held(job.id)
        assert all(int(attempts.get(shard, 0)) == 0 for shard in waiting)
        assert not fleet.redis.exists(f"masksmith:workers:{worker.title}")
        assert service.stop()
        service.start()
        found = bits(job)
    table["SIGTERM of worker, then of service"].add(lost=int(found != undisturbed))
    assert found == undisturbed
