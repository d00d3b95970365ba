"""Pages can be used by everybody: names, contrast, themes, small screens."""

import pytest


def test_every_control_has_a_name(browser, solved):
    script = """return [...document.querySelectorAll('input:not([type=hidden]), select, button, a, canvas, progress')]
        .filter(e => !(e.ariaLabel || e.labels?.length || e.innerText?.trim() || e.getAttribute('aria-labelledby')))
        .map(e => e.outerHTML)"""
    for path in (
        "/",
        "/jobs",
        f"/jobs/{solved.id}",
        f"/jobs/{solved.id}/layer?tensor={solved.document.tensors[0].name}",
    ):
        browser.open(path)
        browser.run("for (const e of document.querySelectorAll('details')) e.open = true")
        assert [found for found in browser.run(script) if "ramp" not in found] == []
        assert len(browser.all("h1")) == 1


def luminance(colour):
    values = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOURS = """const seen = new Map();
for (const e of document.querySelectorAll('main *, header *')) {
  if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.offsetParent) continue;
  let under = e;
  while (under && getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
  const pair = [getComputedStyle(e).color, getComputedStyle(under ?? document.body).backgroundColor];
  seen.set(pair.join(), pair);
}
return [...seen.values()]"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_dark_and_light(browser, solved, dark):
    browser.resize((1280, 900), dark=dark)
    layer = f"/jobs/{solved.id}/layer?tensor={solved.document.tensors[0].name}"
    for path in ("/", "/jobs", "/login", f"/jobs/{solved.id}", layer, f"/compare?a={solved.id}&b={solved.id}"):
        browser.open(path)
        browser.run("for (const e of document.querySelectorAll('details')) e.open = true")
        assert (luminance(browser.run("return getComputedStyle(document.body).backgroundColor")) < 0.1) == dark
        for text, ground in browser.run(COLOURS):
            lights = sorted((luminance(text), luminance(ground)))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (path, text, ground)


def test_the_theme_can_be_chosen_and_stays(browser):
    browser.open("/")
    button = browser.find("#theme")
    button.click()
    button.click()
    assert button.text == "Theme: dark"
    assert luminance(browser.run("return getComputedStyle(document.body).backgroundColor")) < 0.1
    browser.open("/jobs")
    assert luminance(browser.run("return getComputedStyle(document.body).backgroundColor")) < 0.1


def test_nothing_sticks_out_of_a_phone(browser, solved):
    browser.resize((390, 844))
    name = solved.document.tensors[0].name
    both = f"/compare?a={solved.id}&b={solved.id}&tensor={name}"
    for path in ("/", "/jobs", f"/jobs/{solved.id}", f"/jobs/{solved.id}/layer?tensor={name}", both):
        browser.open(path)
        assert browser.run("return document.documentElement.scrollWidth") <= 390, path
