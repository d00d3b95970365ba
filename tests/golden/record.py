"""Record what the tests beside this file hold: `.venv/bin/python tests/golden/record.py [masks|requests]`."""

from __future__ import annotations

import json
import sys
import warnings
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from golden.mask_cases import Case, Truth, cases, torch_threads  # noqa: E402
from golden.request_cases import SCENARIOS, TWINS, lines  # noqa: E402


def masks() -> dict[str, Truth]:
    """Solve everything; a family that is refused as a whole gets one line."""
    found: dict[str, Truth] = {}
    for family, members in groupby(sorted(cases(), key=lambda case: case.family), lambda case: case.family):
        truths = {case.id: _truth(case) for case in members}
        first = next(iter(truths.values()))
        same = "error" in first and all(truth == first for truth in truths.values())
        found |= {family: first} if same else truths
    return found


def _truth(case: Case) -> Truth:
    if not case.is_torch:
        return case.truth()
    truths = []
    for threads in (1, 2):
        with torch_threads(threads):
            truths.append(case.truth())
    if truths[0] == truths[1]:
        return truths[0]
    sys.stderr.write(f"depends on torch's threads: {case.id}\n")
    return case.truth(approximate=True)


def requests() -> dict[str, Any]:
    """Play every scenario with both clients; a line for every request."""
    return {
        f"{name} | {twin} | {number:03d}": line
        for name in SCENARIOS
        for twin in TWINS
        for number, line in enumerate(lines(name, twin))
    }


def write(name: str, truths: dict[str, Any]) -> None:
    """Write a file with one truth a line."""
    rows = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, sort_keys=True)}" for key, value in truths.items())
    (HERE / f"{name}.json").write_text("{\n" + rows + "\n}\n")
    sys.stderr.write(f"{name}: {len(truths)} lines\n")


if __name__ == "__main__":
    warnings.simplefilter("error")
    for wanted in sys.argv[1:] or ("masks", "requests"):
        write(wanted, {"masks": masks, "requests": requests}[wanted]())
