from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from blake3 import blake3
from starlette.testclient import TestClient
from support.leases import run_shard

import masksmith as ms
from masksmith_service.app import create_app
from masksmith_service.jobs import pruned_weights
from masksmith_service.layers import windows
from masksmith_service.layers.tiling import Tiling
from masksmith_state.blobs.names import result_name, upload_name
from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.shards import PlannedTensor
from masksmith_worker.runner import ShardRunner

RNG = np.random.default_rng(11)
FLAT = RNG.standard_normal((75, 101), dtype=np.float32)
CONVOLUTION = RNG.standard_normal((24, 10, 3, 3), dtype=np.float32)


@pytest.fixture
def client(settings):
    # Shards of a few rows, so that every picture is pieced together.
    small = settings.model_copy(update={"shard_bytes": 4096, "max_body_bytes": 2**24})
    with TestClient(create_app(small), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def solve(client, settings, records):
    """Have a file's masks found by a runner in this process; gives the job's id."""

    def solve(tensors, **options):
        data = safetensors.torch.save({name: torch.as_tensor(tensor) for name, tensor in tensors.items()})
        response = client.post("/v1/masks", params=options, content=data)
        assert response.status_code == 202, response.text
        runner = ShardRunner(records, BlobStore(settings.store_location))
        job = response.json()["id"]
        for index in records.shards(job):
            run_shard(runner, job, index)
        return job

    return solve


@pytest.fixture
def window(client):
    def window(job, tensor="w", **query):
        response = client.get(f"/v1/jobs/{job}/window", params={"tensor": tensor, **query})
        assert response.status_code == 200, response.text
        return safetensors.numpy.load(response.content)

    return window


def as_matrix(weight):
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)


CASES = [
    (FLAT, {"pattern": "transposable 8:16"}),
    (FLAT, {"pattern": "2:4", "axis": "out"}),
    (FLAT, {"pattern": "30%"}),
    (CONVOLUTION, {"pattern": "2:4"}),
    (torch.from_numpy(FLAT).bfloat16(), {"pattern": "transposable <=3:8"}),
    (np.abs(FLAT).astype(np.float64), {"pattern": "4:8", "scores": "given"}),
]


@pytest.mark.parametrize(("weight", "options"), CASES)
def test_a_window_shows_mask_and_scores_as_they_are(solve, window, weight, options):
    job = solve({"w": weight}, **options)
    pattern = ms.parse(options["pattern"], axis=options.get("axis", "in"))
    numbers = weight.float().numpy() if isinstance(weight, torch.Tensor) else weight
    scores = np.abs(numbers)
    mask = as_matrix(ms.solve(scores, pattern).mask).astype(np.float32)
    magnitude = as_matrix(scores).astype(np.float32)
    for row, col, rows, cols in [(0, 0, 64, 64), (3, 5, 9, 31), (20, 77, 60, 60)]:
        found = window(job, row=row, col=col, rows=rows, cols=cols)
        part = np.s_[row : row + rows, col : col + cols]
        assert (found["kept"] == mask[part]).all()
        assert (found["scores"] == magnitude[part]).all()
        assert (found["kept_scores"] == (magnitude * mask)[part]).all()


EXPERTS = RNG.standard_normal((3, 20, 48), dtype=np.float32)


@pytest.mark.parametrize(
    ("weight", "axes", "view"),
    [
        (FLAT, "in out", {"tile": ("4", "1"), "matrix-rows": "75", "col-starts": "0"}),
        (EXPERTS, "stack out in", {"tile": ("1", "4"), "matrix-rows": "20", "row-starts": "0"}),
        (EXPERTS, "stack in out", {"tile": ("4", "1"), "matrix-rows": "20", "col-starts": "0"}),
    ],
)
def test_stacked_and_transposed_matrices_are_shown_as_stored(client, solve, window, weight, axes, view):
    job = solve({"w": weight}, pattern="2:4", layout=f"w={axes}")
    mask = ms.solve(np.abs(weight), "2:4", layout=axes).mask
    stored, rows = mask.reshape(-1, mask.shape[-1]), mask.size // mask.shape[-1]
    found = window(job, rows=rows, cols=mask.shape[-1])
    assert (found["kept"] == stored).all()
    assert (found["scores"] == np.abs(weight).reshape(stored.shape)).all()
    assert (window(job, row=21, col=7, rows=9, cols=30)["kept"] == stored[21:30, 7:37]).all()
    page = client.get(f"/jobs/{job}/layer", params={"tensor": "w"}).text
    expected = {"rows": str(rows), "tile-rows": view["tile"][0], "tile-cols": view["tile"][1]} | view
    assert all(f'data-{name}="{value}"' in page for name, value in expected.items() if name != "tile")
    words = axes.split()
    assert f"<dt>{' · '.join(words[:-1])} × {words[-1]}" in page  # noqa: RUF001


def test_tiles_begin_anew_at_fused_parts() -> None:
    fused = PlannedTensor(name="w", digest="", dtype="F32", shape=[24, 16], start=0, axes="out in", out_parts=[12, 12])
    assert Tiling.of(fused, ms.parse("transposable 4:8")) == Tiling((8, 8), ("out", "in"), 24, row_starts=[0, 12])
    turned = fused.model_copy(update={"shape": [16, 24], "axes": "in out"})
    assert Tiling.of(turned, ms.parse("transposable 4:8")) == Tiling((8, 8), ("in", "out"), 16, col_starts=[0, 12])


@pytest.mark.parametrize("step", [2, 7, 64, 1000])
def test_a_far_view_is_the_mean_of_its_cells(solve, window, step):
    job = solve({"w": FLAT}, pattern="30%")
    mask, scores = ms.solve(np.abs(FLAT), "30%").mask, np.abs(FLAT)
    found = window(job, row=2, col=1, step=step)
    assert found["kept"].shape == (-(-73 // step), -(-100 // step))
    for (row, col), share in np.ndenumerate(found["kept"]):
        part = np.s_[2 + row * step : 2 + (row + 1) * step, 1 + col * step : 1 + (col + 1) * step]
        assert share == pytest.approx(mask[part].mean(), abs=1e-6)
        assert found["scores"][row, col] == pytest.approx(scores[part].mean(), rel=1e-5)
        kept = scores[part][mask[part]]
        assert found["kept_scores"][row, col] == pytest.approx(kept.mean() if kept.size else 0, rel=1e-5)


def test_a_large_view_samples_rows_and_says_so(client, solve, window, monkeypatch):
    job = solve({"w": FLAT}, pattern="30%")
    monkeypatch.setattr(windows, "SAMPLED_ENTRIES", 4 * 5 * 20 * 3)
    monkeypatch.setattr(windows, "BAND_BYTES", 4 * 101 * 6)
    mask = ms.solve(np.abs(FLAT), "30%").mask
    found = window(job, rows=4, cols=6, step=20)
    for (row, col), share in np.ndenumerate(found["kept"]):
        first, length = 20 * row, min(20, 75 - 20 * row)
        rows = [first + length * number // 2 for number in range(2)]
        assert share == pytest.approx(mask[rows, 20 * col : 20 * col + 20].mean(), abs=1e-6)
    response = client.get(f"/v1/jobs/{job}/window", params={"tensor": "w", "rows": 4, "cols": 6, "step": 20})
    text = response.content[8 : 8 + int.from_bytes(response.content[:8], "little")]
    assert b'"sampled":"2"' in text


@pytest.mark.parametrize(("weight", "cols"), [(FLAT, 101), (CONVOLUTION, 3)])
def test_bounds_do_not_grow_with_the_layer(solve, window, monkeypatch, weight, cols):
    job = solve({"w": weight}, pattern="2:4")
    read = []
    ranges = BlobStore.get_ranges

    def counted(self, name, starts, length, digest=None):
        read.append(len(starts) * length)
        return ranges(self, name, starts, length, digest)

    monkeypatch.setattr(BlobStore, "get_ranges", counted)
    monkeypatch.setattr(windows, "BAND_BYTES", 1000)
    found = window(job, rows=75, cols=cols)
    assert max(read) <= 1000
    assert (found["kept"] == as_matrix(ms.solve(np.abs(weight), "2:4").mask)[:, :cols]).all()
    monkeypatch.setattr(windows, "SAMPLED_ENTRIES", 2 * as_matrix(weight).shape[1])
    read.clear()
    window(job, rows=1, cols=1, step=cols)
    # Two rows of scores are read at most, where stored rows are read whole; likewise of the mask.
    assert sum(read) <= 2 * as_matrix(weight).shape[1] * (4 + 1)


def test_the_profile_counts_rows_and_columns(client, solve):
    job = solve({"w": FLAT}, pattern="30%")
    response = client.get(f"/v1/jobs/{job}/profile", params={"tensor": "w"})
    found = safetensors.numpy.load(response.content)
    mask = ms.solve(np.abs(FLAT), "30%").mask
    assert (found["row_kept"] == mask.sum(axis=1)).all()
    assert (found["col_kept"] == mask.sum(axis=0)).all()
    rows = [number * 75 // 64 for number in range(64)]
    wanted = np.quantile(np.abs(FLAT[rows]), np.linspace(0, 1, 101))
    assert found["quantiles"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 2.0**125), (np.float64, 2.0**900)])
def test_pictures_of_scores_near_and_beyond_the_largest_float32_are_finite(client, solve, window, dtype, scale):
    job = solve({"w": FLAT.astype(dtype) * dtype(scale)}, pattern="2:4")
    profile = safetensors.numpy.load(client.get(f"/v1/jobs/{job}/profile?tensor=w").content)
    assert profile["kept_counts"].sum() + profile["dropped_counts"].sum() == 64 * FLAT.shape[1]
    for picture in (profile, window(job), window(job, step=16)):
        assert all(np.isfinite(values).all() for values in picture.values())


def test_the_score_of_the_lowest_integer_is_its_magnitude(client, solve, window):
    weight = np.tile(np.array([-128, 1, 2, 127], np.int8), (8, 4))
    job = solve({"w": weight}, pattern="2:4", layers="w")
    assert (window(job)["scores"] == np.abs(weight.astype(np.float32))).all()
    profile = safetensors.numpy.load(client.get(f"/v1/jobs/{job}/profile?tensor=w").content)
    assert profile["edges"][-1] == profile["quantiles"][-1] == 128
    assert profile["kept_counts"].sum() == profile["dropped_counts"].sum() == 64


@pytest.mark.parametrize("name", ["a/b", "..", "läufer", "what?&#", "w w"])
def test_any_printable_name_is_valid(solve, window, name):
    job = solve({name: FLAT}, pattern="2:4")
    assert window(job, tensor=name)["kept"].shape == (75, 101)


@pytest.mark.parametrize(
    "query",
    [{"row": 75}, {"col": 101}, {"rows": 0}, {"cols": 1025}, {"rows": 1024, "cols": 1024}, {"step": 0}, {"row": -1}],
)
def test_windows_that_are_none_are_refused(client, solve, query):
    job = solve({"w": FLAT}, pattern="2:4")
    response = client.get(f"/v1/jobs/{job}/window", params={"tensor": "w"} | query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_document")


def test_a_layer_that_cannot_be_shown_is_named(client, solve, submit, settings):
    waiting = submit()["id"]
    for query, status, code, word in [
        ({"tensor": "layer.weight"}, 404, "result_not_found", "layer.weight"),
        ({"tensor": "nope"}, 404, "unknown_tensor", "nope"),
    ]:
        response = client.get(f"/v1/jobs/{waiting}/window", params=query)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert word in response.json()["detail"]
    assert client.get("/v1/jobs/nope/profile", params={"tensor": "w"}).json()["code"] == "job_not_found"
    job = solve({"w": FLAT}, pattern="2:4")
    data = safetensors.torch.save({"w": torch.as_tensor(FLAT)})
    BlobStore(settings.store_location).delete(upload_name(blake3(data).hexdigest()))
    response = client.get(f"/v1/jobs/{job}/window", params={"tensor": "w"})
    assert (response.status_code, response.json()["code"]) == (404, "result_not_found")
    assert "expired" in response.json()["detail"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pruned_weights_are_the_weights_where_the_mask_keeps_them(client, solve, monkeypatch, dtype):
    monkeypatch.setattr(pruned_weights, "BAND_BYTES", 1000)
    weights = {"w": torch.as_tensor(FLAT).to(dtype), "c": torch.as_tensor(CONVOLUTION).to(dtype)}
    job = solve(weights, pattern="2:4")
    answer = client.get(f"/v1/jobs/{job}/pruned")
    assert int(answer.headers["content-length"]) == len(answer.content)
    pruned, masks = safetensors.torch.load(answer.content), client.get(f"/v1/jobs/{job}/masks?format=bool").content
    for name, mask in safetensors.torch.load(masks).items():
        assert pruned[name].dtype == dtype
        assert torch.equal(pruned[name], torch.where(mask, weights[name], torch.zeros_like(weights[name])))
        assert 0 < mask.sum() < mask.numel()


def test_pruned_weights_expire_with_the_upload(client, solve, settings, check_problem):
    job = solve({"w": FLAT}, pattern="2:4")
    upload = client.app.state.masksmith.records.read(job).plan.tensors[0].digest
    BlobStore(settings.store_location).delete(upload_name(upload))
    check_problem(client.get(f"/v1/jobs/{job}/pruned"), 404, "result_not_found", "expired")


def test_histograms_count_kept_and_dropped_scores(client, solve):
    job = solve({"w": FLAT}, pattern="2:4")
    profile = safetensors.numpy.load(client.get(f"/v1/jobs/{job}/profile?tensor=w").content)
    mask = safetensors.numpy.load(client.get(f"/v1/jobs/{job}/masks?format=bool").content)["w"]
    scores = np.abs(FLAT)[[number * 75 // 64 for number in range(64)]]
    kept = mask[[number * 75 // 64 for number in range(64)]]
    edges = profile["edges"]
    assert edges[0] == 0
    assert edges[-1] == scores.max()
    for name, members in (("kept_counts", scores[kept]), ("dropped_counts", scores[~kept])):
        counts = profile[name]
        assert counts.sum() == members.size
        assert [int(count) for count in counts] == [int(c) for c in np.histogram(members, edges)[0]]


@pytest.mark.parametrize("folder", ["tensors", "masks"])
def test_damage_is_found_before_the_first_byte_of_pruned_weights(client, solve, settings, folder):
    job = solve({"w": FLAT[:8]}, pattern="2:4")
    (path,) = [path for path in Path(settings.store_url, folder).rglob("*") if path.is_file() and not path.suffix]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        response = client.get(f"/v1/jobs/{job}/pruned")
        code = "upload_damaged" if folder == "tensors" else "result_damaged"
        assert (response.status_code, response.json()["code"]) == (409, code)


@pytest.mark.parametrize("path", ["masks", "pruned", "window?tensor=w", "profile?tensor=w"])
def test_an_intact_mask_whose_list_of_digests_is_lost_is_served_and_stays(client, solve, settings, path):
    job = solve({"w": FLAT[:8]}, pattern="2:4")
    for list_path in Path(settings.store_url, "pieces", "masks").rglob("*"):
        if list_path.is_file():
            list_path.unlink()
    assert client.get(f"/v1/jobs/{job}/{path}").status_code == 200
    assert not Path(settings.store_url, "damaged").exists()


def test_a_mask_that_another_job_has_replaced_is_refused_and_stays(client, solve, settings, records):
    """Two processors may compute one result with different values: the second one is not damaged."""
    job, store = solve({"w": FLAT}, pattern="2:4", ragged="pad"), BlobStore(settings.store_location)
    name = result_name(str(records.report(job, 0).result))
    data = bytes(byte ^ 1 for byte in store.get(name))
    digest = store.put(name, data)
    for address in ("masks", "pruned", "window?tensor=w&rows=1&columns=101"):
        response = client.get(f"/v1/jobs/{job}/{address}")
        assert (response.status_code, response.json()["code"]) == (409, "result_damaged"), response.text
        assert "was replaced by that of another job" in response.json()["detail"], address
    assert store.get(name, digest) == data
