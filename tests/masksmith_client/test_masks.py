import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from masksmith_client import Client, InputError, Masks, WireError
from masksmith_wire.headers import build_header

from .conftest import FakeService, some_mask


def test_saved_masks_open_again(client: Client, tmp_path: Path) -> None:
    weights = {"a": np.ones((8, 13)), "conv": np.ones((2, 3, 3, 3))}
    masks = client.solve(weights, "2:4")
    path = masks.save(tmp_path / "new folder" / "masks.safetensors")
    again = Masks.open(path)
    assert again.infos["conv"].shape == [2, 3, 3, 3]
    for name, weight in weights.items():
        assert np.array_equal(again[name], masks[name])
        assert np.array_equal(again[name], some_mask(list(weight.shape)))
    assert [file.name for file in path.parent.iterdir()] == ["masks.safetensors"]


def test_masks_are_one_bit_an_entry_on_disk(client: Client, tmp_path: Path) -> None:
    path = client.solve({"a": np.ones((512, 512))}, "2:4").save(tmp_path / "m")
    assert path.stat().st_size < 512 * 512 / 8 + 1000


def test_plain_bool_files_are_masks_too(tmp_path: Path) -> None:
    save_file({"w": np.eye(5, dtype=np.bool_)}, tmp_path / "m.safetensors")
    masks = Masks.open(tmp_path / "m.safetensors")
    assert np.array_equal(masks["w"], np.eye(5, dtype=np.bool_))
    masks["w"][0, 0] = False


@pytest.mark.parametrize("array", [np.ones((4, 4), np.float32), np.ones((4, 1), np.uint8)])
def test_weights_are_no_masks(tmp_path: Path, array: np.ndarray) -> None:
    save_file({"w": array}, tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="'w' is not a mask"):
        Masks.open(tmp_path / "m.safetensors")


def test_a_mask_of_a_negative_shape_is_refused(tmp_path: Path) -> None:
    metadata = {"masksmith": json.dumps({"w": {"shape": [4, -7], "pattern": "2:4"}})}
    (tmp_path / "m").write_bytes(build_header({"w": ("U8", (4, 0))}, metadata))
    with pytest.raises(InputError, match="'w' is not a mask"):
        Masks.open(tmp_path / "m")


@pytest.mark.parametrize("array", [np.ones((4, 8), np.bool_), np.full((4, 1), 255, np.uint8)])
def test_a_file_that_lists_a_mask_twice_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    listed = '"w": {"shape": [4, 8], "pattern": "2:4"}'
    save_file({"w": array}, tmp_path / "m.safetensors", {"masksmith": f"{{{listed}, {listed}}}"})
    with pytest.raises(InputError, match="its list of masks is ambiguous: the member 'w' is given twice"):
        Masks.open(tmp_path / "m.safetensors")


def test_a_download_that_lists_a_mask_twice_is_refused(
    client: Client, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = '"w": {"shape": [4, 8], "pattern": "2:4"}'
    content = save({"w": np.full((4, 1), 0x33, np.uint8)}, {"masksmith": f"{{{listed}, {listed}}}"})
    monkeypatch.setattr(service, "masks_file", lambda job: content)
    with pytest.raises(WireError, match=r"the file of masks cannot be read: .*'w' is given twice"):
        client.solve({"w": np.ones((4, 8), np.float32)}, "2:4")


@pytest.mark.parametrize("content", [b"", b"rubbish, nothing else"])
def test_rubbish_is_no_masks_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InputError):
        Masks.open(tmp_path / "m")
    with pytest.raises(InputError, match="cannot be read"):
        Masks.open(tmp_path / "absent")


def test_a_mapping_in_every_respect(client: Client, service: FakeService) -> None:
    masks = client.solve({"a": np.ones((4, 4)), "b": np.ones((4, 4))}, "2:4")
    assert (len(masks), list(masks), "a" in masks, masks.get("c")) == (2, ["a", "b"], True, None)
    with pytest.raises(KeyError):
        masks["c"]


@pytest.mark.parametrize("is_own", [True, False], ids=["own job", "job of another process"])
def test_results_of_a_job_known_from_its_entry_in_lists(client: Client, service: FakeService, is_own: bool) -> None:
    """The service answers with such an entry if memory for the document is short, also if the job has ended."""
    weights = {"a": np.ones((4, 8), np.float32)}
    job = client.jobs.submit(weights, "2:4")
    service.finish(job.id)
    updated = save({"a": np.where(some_mask([4, 8]), weights["a"], 0)})
    service.results["weights"] = updated
    for results in ("masks", "weights"):
        known = job if is_own else client.jobs.get(job.id)
        known.document = service.jobs[job.id].model_copy(update={"tensors": []})
        assert list(getattr(known, results)()) == ["a"]
        assert list(known.report) == ["a"]
