"""Checkpoints of several files, patterns of single tensors, calibration files, pruned weights, and benchmarks."""

import numpy as np
import pytest
import safetensors.numpy

import masksmith as ms

WEIGHTS = {
    name: np.random.default_rng(number).standard_normal((16, 32)).astype(np.float32)
    for number, name in enumerate(["a.up_proj.weight", "a.down_proj.weight", "b.up_proj.weight"])
}
NORMS = {name: np.linspace(1, 3, 32, dtype=np.float32) for name in WEIGHTS}


@pytest.fixture
def directory(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    names = list(WEIGHTS)
    for number, part in enumerate((names[:2], names[2:])):
        shard = folder / f"model-0000{number + 1}-of-00002.safetensors"
        safetensors.numpy.save_file({name: WEIGHTS[name] for name in part}, shard)
    (folder / "config.json").write_text("{}")
    safetensors.numpy.save_file({names[0]: np.zeros(8, np.uint8)}, folder / "masks.safetensors")
    calibration = tmp_path / "stats.safetensors"
    safetensors.numpy.save_file({f"{name}/norms": norms for name, norms in NORMS.items()}, calibration)
    return folder, calibration


def test_a_directory_with_patterns_of_its_own_and_a_calibration(browser, directory, tmp_path):
    folder, calibration = directory
    browser.open("/")
    browser.find("#folder").send_keys(str(folder))
    browser.until(lambda: browser.text("#chosen").startswith("3 of 3 tensors"))
    assert browser.text("#file-name") == "2 files"
    browser.find("#patterns").send_keys("*.down_proj.*=transposable 4:8")
    browser.find("#calibration").send_keys(str(calibration))
    browser.run("document.getElementById('scores').value = 'wanda'; document.querySelector('[value=\"2:4\"]').click()")
    browser.find("#go").click()
    browser.until(lambda: "succeeded" in browser.text("h1"))
    assert browser.text("h1").startswith("model, 2:4")
    job = browser.driver.current_url.rpartition("/")[2]
    browser.find("a[download][href$=pruned]").click()
    pruned = safetensors.numpy.load_file(browser.downloaded(tmp_path, f"pruned-{job}.safetensors"))
    assert set(pruned) == set(WEIGHTS)
    for name, weight in WEIGHTS.items():
        pattern = "transposable 4:8" if "down" in name else "2:4"
        assert (pruned[name] == weight * ms.solve(np.abs(weight) * NORMS[name], pattern).mask).all()


def test_shards_with_equal_names_are_refused_before_they_are_sent(browser, directory, tmp_path):
    folder, _ = directory
    shard = next(folder.glob("*.safetensors"))
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(shard.read_bytes())
    browser.open("/")
    browser.find("#file").send_keys(f"{shard}\n{copy}")
    browser.until(lambda: "is in another of the files, too" in browser.text("#file-error"))


def test_a_benchmark_is_started_from_the_masks_of_a_job(browser, solved):
    browser.open(f"/jobs/{solved.id}")
    browser.find("#measure summary").click()
    browser.find("#batches").clear()
    browser.find("#batches").send_keys("1")
    browser.find("#bench button").click()
    browser.until(lambda: browser.driver.current_url.rpartition("/")[2] != solved.id)
    browser.until(lambda: "transposable 8:16" in browser.text("h1"))
    browser.find("form[action$='/cancel'] button").click()


def test_names_are_not_underlined(browser, solved):
    browser.open(f"/jobs/{solved.id}")
    lines = "return [...document.querySelectorAll('.name a')].map(e => getComputedStyle(e).textDecorationLine)"
    assert set(browser.run(lines)) == {"none"}
