import base64

import numpy as np
import pytest
import safetensors.numpy
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys

import masksmith as ms
from masksmith_state.keys import Keys as ServiceKeys

PATTERN = "transposable 8:16"


@pytest.fixture
def file(tmp_path, layers):
    """The four real layers and a bias, as a file to upload."""
    path = tmp_path / "layers.safetensors"
    path.write_bytes(safetensors.numpy.save(layers | {"bias": np.ones(8, np.float32)}))
    return path


def name_of(layers, word):
    return next(name for name in layers if word in name)


def test_upload_watch_open_download(browser, file, layers, tmp_path):
    browser.open("/")
    browser.find("#file").send_keys(str(file))
    browser.until(lambda: browser.text("#chosen").startswith("4 of 5 tensors"))
    browser.find("#layers").send_keys("*.attention.*")
    browser.until(lambda: browser.text("#chosen").startswith("2 of 5 tensors"))
    browser.find("#exclude").send_keys("*.query.*")
    browser.until(lambda: browser.text("#chosen").startswith("1 of 5 tensors"))
    browser.find("#exclude").clear()
    browser.find("input[value='transposable 2:4']").find_element("xpath", "..").click()
    assert browser.find("#pattern").get_attribute("value") == "transposable 2:4"
    browser.until(lambda: "transposable 2:4" in browser.text("#preview"))
    browser.find("#go").click()
    browser.until(lambda: "/jobs/" in browser.driver.current_url)
    browser.until(lambda: "succeeded" in browser.text("h1"))
    browser.until(lambda: browser.text("#counted") == "6 of 6 shards")
    assert browser.text(".figures dd") == "2/2"
    assert len(browser.all("#layers tbody tr")) == 2
    assert "3 tensors were not masked" in browser.text("details.skipped")
    browser.find("a[download][href$=bool]").click()
    job = browser.driver.current_url.rpartition("/")[2]
    masks = safetensors.numpy.load_file(browser.downloaded(tmp_path, f"masks-{job}.safetensors"))
    assert set(masks) == {name for name in layers if "attention" in name}
    for name, mask in masks.items():
        assert (mask == ms.solve(ms.magnitude(layers[name]), "transposable 2:4").mask).all()


def test_the_list_of_tensors_says_what_the_job_will_mask(browser, tmp_path):
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"]
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(dict.fromkeys(names, np.ones((16, 16), np.float32)), path)
    browser.open("/")
    browser.find("#file").send_keys(str(path))
    browser.until(lambda: browser.text("#chosen") == "1 of 3 tensors will be masked: 256 weights")
    masked = "return [...document.querySelectorAll('#tensors tr')].map(row => row.cells[3].textContent)"
    reasons = ["no: an output head", "no: an embedding by its name, which is looked up, not multiplied", "yes"]
    assert browser.run(masked) == reasons
    browser.find("#layers").send_keys("*up_proj* lm_head.weight")
    browser.until(lambda: browser.text("#chosen").startswith("2 of 3 tensors"))
    assert browser.run(masked) == ["yes", "no: not selected", "yes"]
    browser.find("#layers").clear()
    browser.find("#layers").send_keys("other")
    browser.until(lambda: "no tensor is called 'other'" in browser.text("#chosen"))


def test_a_job_is_watched_live_and_canceled(browser, running):
    browser.open(f"/jobs/{running.id}")
    first_text = browser.until(lambda: browser.text("#counted"))
    browser.until(lambda: int(browser.text("#counted").split()[0]) > int(first_text.split()[0]))
    assert browser.find("#head progress").get_attribute("value") != "0"
    browser.find("form[action$='/cancel'] button").click()
    browser.until(lambda: "canceled" in browser.text("h1"))
    assert running.refresh().state == "canceled"
    assert not browser.all("form[action$='/cancel']")


def test_the_end_of_a_job_is_seen_without_a_touch(browser, client, layers):
    job = client.jobs.submit(layers, "transposable 31:64", solver="min-cost-flow")
    browser.open(f"/jobs/{job.id}")
    browser.until(lambda: "succeeded" in browser.text("h1"), 60)
    browser.until(lambda: len(browser.all("#layers .badge.optimal")) == 4)
    assert browser.text("#spoken") == "The job is succeeded"
    assert "succeeded" in browser.driver.title


def test_an_error_stands_beside_its_layer(browser, client, layers):
    broken = {name: weight.copy() for name, weight in layers.items()}
    bad = name_of(layers, "intermediate")
    broken[bad][1234, 56] = np.nan
    job = client.jobs.submit(broken, PATTERN)
    browser.open(f"/jobs/{job.id}")
    browser.until(lambda: "failed" in browser.text("h1"))
    row = browser.text("tr.failed")
    assert bad in row
    assert "NaN at [1234, 56]" in row
    assert "invalid_scores" in row
    assert len(browser.all("#layers .badge.optimal")) == 3
    assert browser.find("a[download]").is_displayed()


def test_sending_shows_how_far_it_is_and_can_be_stopped(browser, file, stack):
    before = len(stack.http.get("/v1/jobs").json()["jobs"])
    browser.open("/")
    browser.find("#file").send_keys(str(file))
    browser.until(lambda: browser.text("#chosen"))
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
    browser.driver.execute_cdp_cmd("Network.enable", {})
    browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    try:
        browser.find("#go").click()
        browser.until(lambda: 0 < browser.run("return document.getElementById('sent').value") < 1)
        assert browser.text("#sent-text").endswith(" MiB")
        assert not browser.find("#go").is_enabled()
        browser.find("#stop").click()
        browser.until(lambda: browser.text("#start-error") == "Upload stopped; no job was started.")
    finally:
        browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    assert len(stack.http.get("/v1/jobs").json()["jobs"]) == before
    browser.find("#go").click()
    browser.until(lambda: "succeeded" in browser.text("h1"))


def test_a_file_can_be_dropped(browser, layers):
    name, weight = next(iter(layers.items()))
    data = base64.b64encode(safetensors.numpy.save({name: weight[:16]})).decode()
    browser.open("/")
    browser.run(
        """const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
        const moved = new DataTransfer();
        moved.items.add(new File([bytes], "dropped.safetensors"));
        const drop = new DragEvent("drop", { dataTransfer: moved, bubbles: true });
        document.getElementById("drop").dispatchEvent(drop);""",
        data,
    )
    browser.until(lambda: browser.text("#file-name") == "dropped.safetensors")
    browser.find("#go").click()
    browser.until(lambda: "succeeded" in browser.text("h1"))
    assert browser.text("#layers tbody tr th") == name


def test_files_that_are_none_are_refused_before_they_are_sent(browser, tmp_path):
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"\xff" * 1000)
    browser.open("/")
    browser.find("#go").click()
    assert "Choose a .safetensors file" in browser.text("#file-error")
    browser.find("#file").send_keys(str(junk))
    browser.until(lambda: "junk.safetensors: This is not a safetensors file" in browser.text("#file-error"))


def test_what_the_service_refuses_is_said(browser, file):
    browser.open("/")
    browser.find("#file").send_keys(str(file))
    pattern = browser.find("#pattern")
    pattern.clear()
    pattern.send_keys("17:16")
    browser.until(lambda: "n counts the kept entries" in browser.text("#preview"))
    browser.until(lambda: browser.all("#contents:not([hidden])"))
    browser.find("#go").click()
    browser.until(lambda: "invalid_pattern" in browser.text("#start-error"))
    assert browser.find("#go").is_enabled()
    # The refusal itself is logged by the browser as a failed request.
    assert [message for message in browser.complaints() if "422" not in message] == []


def test_fill_and_pattern_agree(browser):
    browser.open("/")
    pattern = browser.find("#pattern")
    browser.run(
        "const fill = document.getElementById('fill'); fill.value = 'most'; fill.dispatchEvent(new Event('change'))"
    )
    assert pattern.get_attribute("value") == "transposable <=8:16"
    assert browser.find("[name=choice]:checked").get_attribute("value") == "transposable <=8:16"
    pattern.clear()
    pattern.send_keys("3:8")
    assert browser.find("#fill").get_attribute("value") == "exact"
    assert not browser.all("[name=choice]:checked")
    browser.until(lambda: "37.50" in browser.text("#preview"))


def drawn(browser):
    """The canvas as it is, rows x columns x red, green, blue."""
    script = """const canvas = document.querySelector('.picture');
        const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return [canvas.height, canvas.width, btoa(Array.from(data, byte => String.fromCharCode(byte)).join(''))]"""
    height, width, text = browser.run(script)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4)[..., :3]


def ready(browser):
    browser.until(lambda: browser.all(".viewer[data-ready=true]"))
    # One frame more, for what is drawn when the last window has come.
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def test_the_picture_is_the_mask(browser, solved, layers):
    name = name_of(layers, "query")
    mask = ms.solve(ms.magnitude(layers[name]), PATTERN).mask
    browser.open(f"/jobs/{solved.id}")
    browser.find("#layers tbody a[href*='query']").click()
    ready(browser)
    browser.find("[data-do=grid]").click()
    browser.find("[data-do=tile]").click()
    ready(browser)
    row0, col0, scale = browser.run(
        "const p = document.querySelector('.picture').picture; return [p.row, p.col, p.scale]"
    )
    none = browser.run("return document.querySelector('.picture').picture.colours.none")
    middles = [((np.arange(16) + 0.5 - first) * scale).astype(int) for first in (row0, col0)]
    seen = (drawn(browser)[np.ix_(*middles)] != none).any(axis=-1)
    assert (seen == mask[:16, :16]).all()
    assert "all 50.0 %" in browser.text("#row-fill")
    assert "all 50.0 %" in browser.text("#col-fill")


def test_the_picture_obeys_the_keys_and_tells_what_it_shows(browser, solved, layers):
    name = name_of(layers, "query")
    mask = ms.solve(ms.magnitude(layers[name]), PATTERN).mask
    browser.open(f"/jobs/{solved.id}/layer?tensor={name}")
    ready(browser)
    canvas = browser.find(".picture")
    opened = browser.run("return document.querySelector('.picture').picture.scale")
    canvas.send_keys("0")
    whole = browser.run("return document.querySelector('.picture').picture.scale")
    assert opened > whole, "it opens on a few tiles"
    assert "kept, mean about" in browser.text("#score-range")
    canvas.send_keys("+" * 4)
    assert browser.run("return document.querySelector('.picture').picture.scale") > 4 * whole
    ready(browser)
    canvas.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    row, col = browser.run("return document.querySelector('.picture').picture.cursor")
    said = browser.text(".readout")
    assert said.startswith(f"row {row}, column {col} · {'kept' if mask[row, col] else 'dropped'}, score ")
    assert float(said.split("score ")[1].split()[0]) == pytest.approx(abs(layers[name][row, col]), rel=1e-3)
    before = browser.run("return document.querySelector('.picture').picture.col")
    canvas.send_keys(Keys.SHIFT + Keys.ARROW_RIGHT)
    assert browser.run("return document.querySelector('.picture').picture.col") > before
    canvas.send_keys("0")
    assert browser.run("return document.querySelector('.picture').picture.scale") == pytest.approx(whole)


def test_layers_are_sorted_and_searched_in_place(browser, solved):
    browser.open(f"/jobs/{solved.id}")
    browser.find("#by-retained").click()
    browser.until(lambda: browser.all("th[aria-sort=ascending] #by-retained"))
    shares = [float(cell.text.split()[0]) for cell in browser.all("#layers tbody td:nth-of-type(2)")]
    assert shares == sorted(shares)
    assert browser.run("return document.activeElement.id") == "by-retained"
    browser.find("#by-retained").click()
    browser.until(lambda: browser.all("th[aria-sort=descending] #by-retained"))
    field = browser.find("[name=q]")
    field.send_keys("query", Keys.ENTER)
    browser.until(lambda: len(browser.all("#layers tbody tr")) == 1)
    browser.driver.back()
    browser.until(lambda: len(browser.all("#layers tbody tr")) == 4)


def test_jobs_are_searched_and_canceled_from_the_list(browser, running):
    browser.open("/jobs")
    browser.until(lambda: "slots" in browser.text(".workers"))
    field = browser.find("[name=q]")
    field.send_keys(running.id, Keys.ENTER)
    browser.until(lambda: len(browser.all("#list tbody tr")) == 1)
    browser.find("#list form button").click()
    browser.until(lambda: "canceled" in browser.text("h1"))


def test_two_masks_side_by_side_move_together(browser, client, solved, layers):
    other = client.solve(layers, "8:16").job
    browser.open(f"/compare?a={solved.id}&b={other.id}")
    browser.until(lambda: len(browser.all(".compared tbody tr")) == 4)
    browser.find(".compared tbody a[href*='query']").click()
    browser.until(lambda: len(browser.all(".viewer[data-ready=true]")) == 2)
    assert "kept by both" in browser.text("#masks")
    left, right = browser.all(".picture")
    left.send_keys("++", Keys.ARROW_DOWN)
    where = "const p = arguments[0].picture; return [p.row, p.col, p.scale, p.cursor, p.top]"
    assert browser.run(where, left) == browser.run(where, right)
    right.send_keys("0")
    assert browser.run(where, left) == browser.run(where, right)
    said = [line.text for line in browser.all(".readout")]
    assert all(line.startswith("row ") for line in said)


def test_everything_can_be_done_with_the_keyboard(browser, file):
    browser.open("/")

    def press(*keys):
        ActionChains(browser.driver).send_keys(*keys).perform()

    def focused():
        return browser.run("const e = document.activeElement; return e.id || e.className || e.value")

    # The browser may move the focus a little after the key, at first.
    for key, expected in ((Keys.TAB, "skip"), (Keys.ENTER, "main"), (Keys.TAB, "file")):
        press(key)
        browser.until(lambda expected=expected: focused() == expected, timeout_s=300)
    browser.find("#file").send_keys(str(file))
    browser.until(lambda: browser.text("#chosen"))
    while focused() != "transposable 8:16":
        press(Keys.TAB)
    press(Keys.ARROW_LEFT)
    assert browser.find("#pattern").get_attribute("value") == "transposable 2:4"
    while focused() != "go":
        press(Keys.TAB)
    press(Keys.ENTER)
    browser.until(lambda: "succeeded" in browser.text("h1"))
    while "layer?tensor" not in (browser.run("return document.activeElement.href") or ""):
        press(Keys.TAB)
    press(Keys.ENTER)
    ready(browser)
    while focused() != "picture":
        press(Keys.TAB)
    press(Keys.ARROW_RIGHT)
    assert browser.text(".readout").startswith("row ")


@pytest.fixture
def token(stack):
    """A key, which makes the installation ask for one; forgotten afterwards."""
    before = set(stack.valkey_client.keys("masksmith:*"))
    yield ServiceKeys(stack.valkey_client).create("ann")[1]
    made = set(stack.valkey_client.keys("masksmith:key*")) | set(stack.valkey_client.keys("masksmith:session*"))
    stack.valkey_client.delete(*(made - before))
    # A service that has seen a key goes on requiring one.
    stack.service.terminate()
    stack.service.wait(60)
    stack.start_service()


def test_signing_in_and_out(browser, token, file):
    browser.open("/")
    browser.find("#token").send_keys("msk_wrong", Keys.ENTER)
    browser.until(lambda: "unknown, was revoked" in browser.text("#login-error"))
    browser.find("#token").clear()
    browser.find("#token").send_keys(token, Keys.ENTER)
    browser.find("#file").send_keys(str(file))
    browser.until(lambda: browser.text("#chosen"))
    browser.find("#go").click()
    browser.until(lambda: "succeeded" in browser.text("h1"))
    assert browser.run("return document.cookie") == ""
    browser.open("/login")
    browser.until(lambda: browser.text("#who") == "Signed in as ann (user).")
    browser.find("#leave").click()
    browser.until(lambda: browser.text("#who") == "This service requires a key.")
    # The refusals are logged by the browser as failed requests.
    assert [message for message in browser.complaints() if "401" not in message] == []
