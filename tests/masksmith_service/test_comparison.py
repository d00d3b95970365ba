import numpy as np
import pytest
from support.leases import run_shard

import masksmith as ms
from masksmith_service.jobs.documents import job_view
from masksmith_service.layers import windows
from masksmith_service.layers.reader import find_layer
from masksmith_service.pages.comparison import compare_masks, pair_layers
from masksmith_state.blobs.store import BlobStore
from masksmith_state.keys import Keys, Role
from masksmith_worker.runner import ShardRunner

HTML = {"Accept": "text/html"}
WEIGHT = np.random.default_rng(5).standard_normal((48, 33)).astype(np.float32)


@pytest.fixture
def solve(client, settings, records, save):
    def solve(tensors, headers=None, **options):
        job = client.post("/v1/masks", params=options, content=save(tensors), headers=headers).json()["id"]
        for index in records.shards(job):
            run_shard(ShardRunner(records, BlobStore(settings.store_location)), job, index)
        return job

    return solve


@pytest.fixture
def read(records):
    def read(job):
        record = records.read(job)
        return job_view(record, records.shards(job), records.reports(job)), record

    return read


def test_layers_are_paired_by_name(solve, read):
    first = solve({"w": WEIGHT, "only a": WEIGHT}, pattern="2:4")
    second = solve({"w": WEIGHT, "only b": WEIGHT.astype(np.float16)}, pattern="25%")
    pairs = {pair.name: pair for pair in pair_layers(*read(first), *read(second))}
    assert list(pairs) == ["only a", "w", "only b"]
    both = pairs["w"]
    kept = [ms.solve(np.abs(WEIGHT), pattern).mask for pattern in ("2:4", "25%")]
    shares = [np.abs(WEIGHT)[mask].sum() / np.abs(WEIGHT).sum() for mask in kept]
    assert both.difference == pytest.approx(shares[1] - shares[0], rel=1e-5)
    assert [side.stored_bytes for side in (both.a, both.b)] == [4 * int(mask.sum()) + 48 * 5 for mask in kept]
    assert both.dense_bytes == 48 * 33 * 4
    assert pairs["only b"].b.stored_bytes == 2 * int(kept[1].sum()) + 48 * 5
    assert (pairs["only a"].b, pairs["only a"].difference, pairs["only a"].is_comparable) == (None, None, False)


def test_masks_are_compared_piece_by_piece(solve, read, records, settings, monkeypatch):
    jobs = [solve({"w": WEIGHT}, pattern=pattern) for pattern in ("2:4", "25%")]
    layers = [find_layer(read(job)[1], records, "w") for job in jobs]
    a, b = (ms.solve(np.abs(WEIGHT), pattern).mask for pattern in ("2:4", "25%"))
    monkeypatch.setattr(windows, "BAND_BYTES", 100)
    found = compare_masks(*layers, BlobStore(settings.store_location))
    assert found.both == pytest.approx((a & b).mean())
    assert found.only_a == pytest.approx((a & ~b).mean())
    assert found.only_b == pytest.approx((b & ~a).mean())


def test_the_page_shows_both(client, solve):
    first, second = (solve({"w": WEIGHT}, pattern=pattern) for pattern in ("2:4", "25%"))
    page = client.get("/compare", params={"a": first, "b": second, "tensor": "w"}, headers=HTML).text
    assert page.count('class="picture"') == 2
    assert "kept by both" in page
    assert 'data-tile-cols="4"' in page
    for query in ({}, {"a": first}, {"a": first, "b": second, "tensor": "nope"}):
        page = client.get("/compare", params=query, headers=HTML)
        assert page.status_code == 200
        assert 'class="picture"' not in page.text
    assert client.get("/compare", params={"a": "nope"}, headers=HTML).status_code == 404


def test_jobs_of_others_are_not_compared(client, records, solve):
    keys = Keys(records.redis)
    ann, bob = ({"Authorization": f"Bearer {keys.create(name, Role.USER)[1]}"} for name in ("ann", "bob"))
    mine, other = solve({"w": WEIGHT}, ann, pattern="2:4"), solve({"w": WEIGHT}, bob, pattern="2:4")
    assert client.get("/compare", params={"a": mine, "b": mine}, headers=ann | HTML).status_code == 200
    assert client.get("/compare", params={"a": mine, "b": other}, headers=ann | HTML).status_code == 404
    assert other not in client.get("/compare", headers=ann | HTML).text


def test_a_budget_gives_every_layer_a_tile_of_its_own(client, solve, read, records):
    rng = np.random.default_rng(0)
    tensors = {"flat": np.ones((32, 32), np.float32), "steep": rng.standard_normal((32, 32)).astype(np.float32) ** 5}
    job = solve(tensors, pattern="4:8", budget="50%")
    document, record = read(job)
    assert document.state == "succeeded"
    for report in document.tensors:
        found = find_layer(record, records, report.name)
        assert found.options.pattern == report.pattern
        assert client.get(f"/jobs/{job}/layer", params={"tensor": report.name}, headers=HTML).status_code == 200
    assert "budget 50%" in client.get(f"/jobs/{job}", headers=HTML).text
