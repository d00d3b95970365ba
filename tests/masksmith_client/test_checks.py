"""A client hands out nothing that is not the result of its own request."""

import json

import numpy as np
import pytest
from blake3 import blake3
from golden.fake_service import safetensors

from masksmith_client import ClientError, InputError, WireError
from masksmith_wire.masks import MaskInfo, pack

WEIGHT = np.ones((8, 16), np.float32)
GOOD = np.arange(128).reshape(8, 16) % 2 == 0


def file_of(
    mask=GOOD, *, names=("w",), shape=None, pattern="2:4", axis="in", rows=None, digest=None, dtype=np.uint8, **more
):
    packed = pack(mask)
    info = {"shape": list(mask.shape if shape is None else shape), "pattern": pattern, "ragged": "pad", "axis": axis}
    info |= more
    if rows is not None:
        info["digests"] = [[rows, digest or blake3(packed.tobytes()).hexdigest()]]
    return safetensors(
        {name: packed.view(dtype) for name in names}, {"masksmith": json.dumps(dict.fromkeys(names, info))}
    )


@pytest.fixture
def download(service, client, monkeypatch):
    """Solve a weight, and be sent a masks file for it."""

    def download(data):
        monkeypatch.setattr(service, "masks_file", lambda job: data)
        return client.solve({"w": WEIGHT}, "2:4", progress=False)

    return download


@pytest.fixture
def solve(download):
    def solve(data):
        masks = download(data)
        return {name: masks[name] for name in masks}

    return solve


def test_good_masks_are_handed_out(solve):
    assert (solve(file_of())["w"] == GOOD).all()
    assert (solve(file_of(rows=8))["w"] == GOOD).all()


BAD = {
    "another name": file_of(names=("v",)),
    "one too many": file_of(names=("w", "v")),
    "none": file_of(names=()),
    "another shape": file_of(GOOD[:4]),
    "a shape that the bytes lack": file_of(shape=(2**30, 2**20)),
    "no shape": file_of(shape=()),
    "a negative shape": file_of(shape=(-8, -16)),
    "transposed": file_of(GOOD.T),
    "another pattern": file_of(pattern="50%"),
    "no pattern": file_of(pattern="x"),
    "all kept": file_of(np.ones((8, 16), bool)),
    "none kept": file_of(np.zeros((8, 16), bool)),
    "one entry moved": file_of(np.roll(GOOD.ravel(), 1).reshape(8, 16) ^ (np.arange(128).reshape(8, 16) == 3)),
    "another digest": file_of(rows=8, digest="0" * 64),
    "digests of fewer rows": file_of(rows=4),
    "digests of no rows": file_of(rows=0),
    "another dtype": file_of(dtype=np.bool_),
    "no metadata": safetensors({"w": pack(GOOD)}),
    "broken metadata": safetensors({"w": pack(GOOD)}, {"masksmith": "["}),
    "metadata of another kind": safetensors({"w": pack(GOOD)}, {"masksmith": '{"w": 1}'}),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_not_the_result_is_refused(solve, data):
    with pytest.raises(WireError):
        solve(data)


def test_masks_that_break_their_pattern_are_not_saved(download, tmp_path):
    masks = download(BAD["all kept"])
    with pytest.raises(ClientError, match="violates its pattern"):
        masks.save(tmp_path / "masks.safetensors")
    with pytest.raises(ClientError, match="violates its pattern"):
        masks.rows("w", 0, 1)
    assert not list(tmp_path.iterdir())


def test_digests_travel_with_a_mask():
    info = MaskInfo(shape=[8, 16], pattern="2:4", digests=[(8, blake3(pack(GOOD).tobytes()).hexdigest())])
    assert MaskInfo.model_validate(info.members()) == info
    assert info.digest_violation("w", pack(GOOD)) is None
    assert "rows 0 to 8 of 'w'" in str(info.digest_violation("w", pack(~GOOD)))
    assert "digests" not in MaskInfo(shape=[8], pattern="2:4").members()


@pytest.mark.parametrize(
    ("options", "bad", "message"),
    [
        ({"axis": "out"}, {"axis": "in"}, "axis 'in', and 'out' was requested"),
        ({}, {"axis": "out"}, "axis 'out', and 'in' was requested"),
        ({"ragged": "error"}, {}, "ragged 'pad', and 'error' was requested"),
        ({"layout": {"w": "in out"}}, {}, "axes 'out in', and 'in out' was requested"),
        ({}, {"axes": "in out"}, "axes 'in out', and 'out in' was requested"),
    ],
)
def test_a_mask_along_another_axis_is_refused(service, client, monkeypatch, options, bad, message):
    mask = np.indices((8, 16)).sum(0) % 2 == 0  # allowed along either axis
    layout = {"axes": options["layout"]["w"]} if "layout" in options else {}
    as_requested = {"axis": "in"} | layout | {name: options[name] for name in ("axis", "ragged") if name in options}
    monkeypatch.setattr(service, "masks_file", lambda job: file_of(mask, **as_requested))
    assert (client.solve({"w": WEIGHT}, "2:4", progress=False, **options)["w"] == mask).all()
    monkeypatch.setattr(service, "masks_file", lambda job: file_of(mask, **bad))
    with pytest.raises(WireError, match=message):
        client.solve({"w": WEIGHT}, "2:4", progress=False, **options)


UPDATED = (WEIGHT * 1.5 * GOOD).astype(np.float32)
BAD_UPDATES = {
    "dense": {"w": WEIGHT},
    "of another mask": {"w": WEIGHT * ~GOOD},
    "one entry too many": {"w": np.where(np.arange(128).reshape(8, 16) == 127, 1, UPDATED).astype(np.float32)},
    "NaN": {"w": np.where(GOOD, np.nan, 0).astype(np.float32)},
    "infinite where it is dropped": {"w": np.where(GOOD, 1, np.inf).astype(np.float32)},
    "another dtype": {"w": UPDATED.astype(np.float64)},
    "another shape": {"w": UPDATED.reshape(8, 4, 4)},
    "another name": {"v": UPDATED},
}


@pytest.fixture
def updated_job(service, client, monkeypatch):
    """A job of this client that has ended; its masks keep what `GOOD` does."""
    monkeypatch.setattr(service, "masks_file", lambda job: file_of())
    gram = {"w": np.eye(16)}
    return client.jobs.submit({"w": WEIGHT}, "2:4", update="reconstruct", calibration=gram, progress=False).wait()


def test_updated_weights_of_the_jobs_masks_are_returned(service, client, updated_job):
    service.results["weights"] = safetensors({"w": UPDATED})
    for job in (updated_job, client.jobs.get(updated_job.id)):
        np.testing.assert_array_equal(job.weights()["w"], UPDATED)
    downloads = service.count("GET", f"/v1/jobs/{updated_job.id}/masks")
    np.testing.assert_array_equal(updated_job.weights(updated_job.masks())["w"], UPDATED)
    assert service.count("GET", f"/v1/jobs/{updated_job.id}/masks") == downloads + 1


@pytest.mark.parametrize("tensors", BAD_UPDATES.values(), ids=BAD_UPDATES)
def test_updated_weights_that_the_job_cannot_have_are_refused(service, updated_job, tensors):
    service.results["weights"] = safetensors(tensors)
    with pytest.raises(WireError, match="updated weight"):
        updated_job.weights()


def test_updated_weights_are_not_compared_with_masks_of_another_job(service, client, updated_job):
    service.results["weights"] = safetensors({"w": UPDATED})
    other = client.solve({"w": WEIGHT}, "2:4", progress=False)
    with pytest.raises(InputError, match=r"^masks= are not those of job"):
        updated_job.weights(other)
