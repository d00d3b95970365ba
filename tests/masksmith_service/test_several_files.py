"""Files that the service digests itself, and jobs on several of them: what the page sends."""

import numpy as np
from blake3 import blake3

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)


def test_a_file_is_stored_under_the_digest_that_the_service_computes(client, good, check_problem):
    first, again = (client.post("/v1/tensors", content=good) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == {
        "digest": blake3(good).hexdigest(),
        "bytes": len(good),
        "tensors": ["layer.bias", "layer.weight"],
    }
    check_problem(client.post("/v1/tensors", content=b"no tensors"), 400, "invalid_safetensors")


def test_one_job_may_have_the_tensors_of_several_files(client, save, put, check_problem):
    shards = [save({f"layer{number}.weight": WEIGHT, f"bias{number}": WEIGHT[0]}) for number in range(2)]
    shards.append(save({"layer2.weight": WEIGHT}))
    also = [put(shard) for shard in shards[1:]]
    query = {"pattern": ["2:4", "layer1.*=4:8"], "also": also}
    job = client.post("/v1/masks", params=query, content=shards[0]).json()
    assert {report["name"]: report["pattern"] for report in job["tensors"]} == {
        "layer0.weight": "2:4", "layer1.weight": "4:8", "layer2.weight": "2:4"
    }  # fmt: skip
    assert [each["name"] for each in job["skipped"]] == ["bias0", "bias1"]
    twice = client.post(
        "/v1/masks", params={"pattern": "2:4", "also": also[:1]}, content=save({"layer1.weight": WEIGHT})
    )
    check_problem(twice, 422, "invalid_document", "two of the files have a tensor 'layer1.weight'")
    unknown = client.post("/v1/masks", params={"pattern": "2:4", "also": ["0" * 64]}, content=shards[0])
    check_problem(unknown, 409, "upload_not_found")
    many = save({f"other{number}": WEIGHT for number in range(4)})
    refused = client.post("/v1/masks", params={"pattern": "2:4", "also": also[:1]}, content=many)
    check_problem(refused, 413, "too_many_tensors", "the job has 6 tensors, max_tensors is 5")
