"""Counts, sizes and durations: the texts of Python, and those of the pages' script, which must be the same."""

import json
import shutil
import subprocess
from importlib.resources import files

import pytest

from masksmith_wire.durations import in_about
from masksmith_wire.quantities import count_text, duration_text, size_text

COUNTS = {0: "0", 999: "999", 1000: "1,000", 1048576: "1,048,576", 10616832: "10,616,832", -2048: "-2,048"}
SIZES = {
    0: "0 B", 1: "1 B", 1023: "1,023 B", 1024: "1 KiB", 1280: "1.3 KiB", 1536: "1.5 KiB", 102348: "99.9 KiB",
    102400: "100 KiB", 102912: "101 KiB",
    1047552: "1,023 KiB", 1048063: "1,023 KiB", 1048064: "1.0 MiB", 2**20: "1 MiB", 64 * 2**20: "64 MiB",
    3 * 2**29: "1.5 GiB", 3 * 2**49: "1.5 PiB", 2**40: "1 TiB", 2**61: "2,048 PiB",
}  # fmt: skip
DURATIONS = {
    0: "0 s", 0.0004: "< 1 ms", 0.001: "1 ms", 0.25: "250 ms", 0.9994: "999 ms", 0.9999: "1.0 s", 1: "1 s",
    4.64: "4.6 s", 60: "60 s", 99.4: "99.4 s", 99.6: "1 min 40 s", 300: "5 min", 3599.9: "1 h", 3660: "1 h 1 min",
    11100: "3 h 5 min", 4e6: "1,111 h 6 min",
}  # fmt: skip


@pytest.mark.parametrize(("count", "text"), COUNTS.items())
def test_counts(count, text):
    assert count_text(count) == text


@pytest.mark.parametrize(("size", "text"), SIZES.items())
def test_sizes(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(("duration", "text"), DURATIONS.items())
def test_durations(duration, text):
    assert duration_text(duration) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "soon"),
        (0.6, "in about 1 s"),
        (12.3, "in about 12 s"),
        (305, "in about 5 min"),
        (11540, "in about 3 h 12 min"),
    ],
)
def test_starts(seconds, text):
    assert in_about(seconds) == text


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
def test_the_script_of_the_pages_writes_the_same():
    module = files("masksmith_service.pages") / "static" / "quantities.js"
    program = f"""import {{ countText, sizeText }} from {json.dumps("file://" + str(module))};
        const [counts, sizes] = {json.dumps([list(COUNTS), list(SIZES)])};
        console.log(JSON.stringify([counts.map(countText), sizes.map(sizeText)]));"""
    command = ["node", "--input-type=module", "--eval", program]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(output) == [list(COUNTS.values()), list(SIZES.values())]
