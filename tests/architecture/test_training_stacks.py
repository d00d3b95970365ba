"""Every row of the page about training stacks names tests, and these are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "training_stacks.md"
TESTS = ROOT / "tests" / "masksmith_client" / "training"
ROWS = re.findall(r"^\| (?!stack \|)(?!---)(.+?) \| (.+) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE)


def test_all_rows_are_read():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    assert len(ROWS) == len(lines) - 2
    assert len(ROWS) > 15


@pytest.mark.parametrize(("stack", "tests"), [(row[0], row[2]) for row in ROWS], ids=[row[0] for row in ROWS])
def test_every_stack_is_shown_by_a_test(stack, tests):
    names = re.findall(r"`(test_\w+\.py)::(test_\w+)`", tests)
    assert names, stack
    assert len(names) == tests.count("`") // 2, "each is the name of a test"
    for file, name in names:
        tree = ast.parse((TESTS / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (stack, name)
