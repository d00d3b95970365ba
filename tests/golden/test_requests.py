"""Both clients send the requests of version 0.1; jobs on a file also have its name."""

import json
from pathlib import Path

import pytest
from golden.request_cases import SCENARIOS, TWINS, lines

TRUTHS = json.loads((Path(__file__).parent / "requests.json").read_text())


@pytest.mark.parametrize("twin", list(TWINS))
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_requests_are_the_recorded_ones(name: str, twin: str) -> None:
    expected = [line for key, line in TRUTHS.items() if key.startswith(f"{name} | {twin} | ")]
    assert lines(name, twin) == expected


def test_every_record_is_of_a_scenario() -> None:
    assert {tuple(key.split(" | ")[:2]) for key in TRUTHS} == {(name, twin) for name in SCENARIOS for twin in TWINS}
