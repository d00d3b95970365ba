"""A real browser, headless Chromium, driven as a person would use the pages."""

import os
import shutil
import time

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

DESKTOP, PHONE = (1280, 900), (390, 844)
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
REASON = f"{' and '.join(MISSING)} not found: apt-get install chromium chromium-driver"


def pytest_terminal_summary(terminalreporter):
    if MISSING:
        terminalreporter.write_line(f"THE PAGES WERE NOT TESTED IN A BROWSER: {REASON}", yellow=True)


class Browser:
    """Chromium and what tests do with it."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def open(self, path):
        """Load a page completely; on a busy machine the driver returns before the page is parsed."""
        self.run("window.isPreviousPage = true")
        self.driver.get(self.url + path)
        self.until(lambda: self.run("return !window.isPreviousPage && document.readyState === 'complete'"))

    def find(self, selector):
        return self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector))[0]

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector):
        # Elements may be replaced at any moment, by the page's own script.
        return self.driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def run(self, script, *given):
        return self.driver.execute_script(script, *given)

    def until(self, condition, timeout_s=2000):
        return WebDriverWait(self.driver, timeout_s, poll_frequency=0.1).until(lambda _: condition())

    def resize(self, size, *, dark=False, density=1):
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": density, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def complaints(self):
        """What the browser has logged: script errors, refused content, failed requests.

        The service may have been asked which tensors an unfinished glob selects, and have refused it.
        """
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if not ("/v1/selection" in message and "422" in message)]

    def downloaded(self, folder, name, timeout_s=200):
        until = time.monotonic() + timeout_s
        while not (folder / name).exists():
            assert time.monotonic() < until, list(folder.iterdir())
            time.sleep(0.05)
        return folder / name


@pytest.fixture(scope="package")
def driver(tmp_path_factory):
    if MISSING and os.environ.get("CI"):
        pytest.fail(REASON)
    if MISSING:
        pytest.skip(REASON)
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    profile = tmp_path_factory.mktemp("chromium")
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))) as driver:
        yield driver


@pytest.fixture
def browser(driver, stack, tmp_path):
    """The browser with an empty page at desktop size; whatever it complains of fails the test."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser = Browser(driver, stack.url)
    browser.resize(DESKTOP)
    browser.open("/jobs")
    browser.run("localStorage.clear()")
    browser.complaints()
    yield browser
    assert browser.complaints() == []
    driver.get("about:blank")


@pytest.fixture
def solved(client, layers):
    """A job that is done."""
    return client.solve(layers, "transposable 8:16").job
