"""A prune by reference through real workers, of which one is killed in the middle, and a bucket that goes away."""

import json

import numpy as np
import pytest
from obstore.store import from_url
from safetensors.numpy import load, save
from support.buckets import BUCKET, Bucket, Cable
from support.fleet import Fleet
from support.processes import poll

import masksmith as ms
from masksmith.patterns import TensorPatterns
from masksmith_client.checkpoints.by_reference import ReferencePruner, chosen_tensors
from masksmith_client.checkpoints.choice import ChoiceOptions
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME, RECORD_NAME

FILES, LAYERS = 4, 5
PATTERN = "transposable 8:16"


def weights(file):
    rng = np.random.default_rng(100 + file)
    return {
        f"model.layers.{file * LAYERS + layer}.up_proj.weight": rng.standard_normal((256, 512), dtype=np.float32)
        for layer in range(LAYERS)
    }


@pytest.fixture(scope="module")
def bucket():
    with Bucket() as bucket:
        yield bucket


@pytest.fixture(scope="module")
def store(bucket):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in bucket.environment.items():
            patch.setenv(name, value)
        store = from_url(f"s3://{BUCKET}")
        weight_map = {}
        for file in range(FILES):
            tensors = weights(file)
            store.put(f"root/model/m-{file}.safetensors", save(tensors, {"format": "pt"}))
            weight_map |= dict.fromkeys(tensors, f"m-{file}.safetensors")
        store.put("root/model/model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode())
        yield store


@pytest.fixture(scope="module")
def cable(bucket):
    """What connects service and workers with the bucket."""
    cable = Cable(bucket.port)
    yield cable
    cable.cut()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory, bucket, cable, store):
    roots = json.dumps([{"url": f"s3://{BUCKET}/root", "read": ["*"], "write": ["*"]}])
    given = bucket.environment_at(cable.port) | {"MASKSMITH_ROOTS": roots, "MASKSMITH_STORE_PATIENCE_S": "300"}
    with Fleet(tmp_path_factory.mktemp("byref"), workers=2, **given) as fleet:
        yield fleet


@pytest.fixture
def client(fleet):
    with fleet.client() as client:
        yield client


def begin(client, output):
    """Post the job, and give it; its masks take seconds."""
    model = f"s3://{BUCKET}/root/model"
    options = ChoiceOptions(TensorPatterns.parse([PATTERN]))
    listing = client.jobs.list_reference(model)
    pruner = ReferencePruner(client.jobs, PruneMethod.parse("magnitude"))
    request = pruner._request(model, f"s3://{BUCKET}/root/{output}", options, listing, chosen_tensors(listing, options))
    return client.jobs.submit_request(request.model_copy(update={"solver": "min-cost-flow"}))


def names(store, output):
    return {entry["path"].removeprefix(f"root/{output}/") for page in store.list(f"root/{output}/") for entry in page}


def check_complete(store, output):
    """Every file has the only optimal masks, found by another solver, as zeros; and no mark is left."""
    assert names(store, output) == {
        *(f"m-{file}.safetensors" for file in range(FILES)), "model.safetensors.index.json", MASKS_NAME, RECORD_NAME
    }  # fmt: skip
    for file in range(FILES):
        written = load(bytes(store.get(f"root/{output}/m-{file}.safetensors").bytes()))
        for name, weight in weights(file).items():
            expected = weight * ms.solve(ms.magnitude(weight), PATTERN, "exact").mask
            assert np.array_equal(written[name], expected), name


@pytest.mark.slow
def test_a_killed_worker_leaves_an_output_that_the_other_finishes(fleet, client, store):
    job = begin(client, "killed")
    fleet.await_done(job.id, 3)
    assert JOURNAL_NAME in names(store, "killed")
    fleet.workers[0].kill()
    job.wait(300)
    check_complete(store, "killed")
    fleet.workers[0].start()
    fleet.await_all()


@pytest.mark.slow
def test_an_output_is_finished_after_all_workers_were_killed(fleet, client, store):
    fleet.forget_results()
    job = begin(client, "all-killed")
    # In the middle of the writing: a file is complete, and others are not.
    poll(lambda: any(name.endswith(".safetensors") for name in names(store, "all-killed")))
    for worker in fleet.workers:
        worker.kill()
    assert JOURNAL_NAME in names(store, "all-killed")
    assert RECORD_NAME not in names(store, "all-killed")
    for worker in fleet.workers:
        worker.start()
    fleet.await_all()
    job.wait(300)
    check_complete(store, "all-killed")


@pytest.mark.slow
def test_a_job_waits_for_a_bucket_that_goes_away(fleet, client, store, cable):
    fleet.forget_results()
    job = begin(client, "away")
    fleet.await_done(job.id, 3)
    cable.cut()
    log = [worker.log for worker in fleet.workers]
    poll(lambda: any("waits for the store" in path.read_text() for path in log))
    assert JOURNAL_NAME in names(store, "away")
    cable.mend()
    job.wait(300)
    check_complete(store, "away")
