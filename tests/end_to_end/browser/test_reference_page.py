"""The page starts a prune by reference: names of model and output, errors beside the button, and the written output."""

import json

import numpy as np
import pytest
import safetensors.numpy
from support.processes import Up, environment

from masksmith_wire.output_names import RECORD_NAME

WEIGHT = np.random.default_rng(3).standard_normal((32, 32), dtype=np.float32)
NAMES = [f"model.layers.{number}.q_proj.weight" for number in range(2)]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "model").mkdir(parents=True)
    safetensors.numpy.save_file(dict.fromkeys(NAMES, WEIGHT), root / "model" / "model.safetensors")
    return root


@pytest.fixture
def stack(tmp_path, root):
    """An installation with a root, in place of the one without."""
    up = Up(tmp_path / "data", tmp_path / "up.log", environment(), "--no-bench", "--root", str(root))
    yield up
    up.stop()


@pytest.mark.slow
def test_a_model_in_a_root_is_pruned_from_the_page(browser, root):
    browser.open("/")
    browser.find("#referenced summary").click()
    browser.find("#model").send_keys(str(root / "nowhere"))
    browser.find("input[value='2:4']").find_element("xpath", "..").click()
    browser.find("#go").click()
    browser.until(lambda: browser.text("#start-error") == "Name both the model and the output directory.")
    browser.find("#output").send_keys(str(root / "pruned"))
    browser.find("#go").click()
    browser.until(lambda: "there is no" in browser.text("#start-error"))
    assert [line for line in browser.complaints() if "404" not in line] == []
    browser.find("#model").clear()
    browser.find("#model").send_keys(str(root / "model"))
    browser.find("#model-exclude").send_keys("*.1.*")
    browser.find("#go").click()
    browser.until(lambda: "/jobs/" in browser.driver.current_url)
    browser.until(lambda: "succeeded" in browser.text("h1"))
    browser.until(lambda: "1 of 1 files of weights written" in browser.text("main"))
    record = json.loads((root / "pruned" / RECORD_NAME).read_text())
    assert [each["name"] for each in record["tensors"] if each["masked"]] == NAMES[:1]
    written = safetensors.numpy.load_file(root / "pruned" / "model.safetensors")
    assert np.count_nonzero(written[NAMES[0]]) == WEIGHT.size // 2
    assert (written[NAMES[1]] == WEIGHT).all()
