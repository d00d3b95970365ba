"""Workflows call targets of the Makefile and files that exist."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def steps(path):
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    return [step for job in jobs for step in job["steps"] if "run" in step]


def commands(path):
    return [step["run"].split() for step in steps(path)]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_command_runs_something_of_the_project(path):
    assert commands(path)
    for program, *arguments in commands(path):
        if program == "make":
            assert arguments[0] in TARGETS
        else:
            assert (ROOT / arguments[0]).is_file()
            assert program == "bash" or program.startswith("python3")


def test_all_lanes_are_run_by_some_workflow():
    texts = [" ".join(command) for path in WORKFLOWS for command in commands(path)]
    lanes = {step.get("env", {}).get("LANE", "test") for path in WORKFLOWS for step in steps(path)}
    assert texts.count("bash .ci/run") == 2
    assert {"test", "test-long"} == lanes <= TARGETS
    assert any(text.startswith("make test-python") for text in texts)
    assert any("scripts/check_constraints.py" in text for text in texts)
