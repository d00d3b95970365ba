"""Every promise names a test, and the test is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "promises.md"
ROWS = re.findall(r"^\| (?!promise \|)(?!---)(.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)


def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_all_rows_are_read():
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    tables = PAGE.read_text().count("|---|---|")
    assert len(ROWS) == len(lines) - 2 * tables
    assert len(ROWS) > 20


@pytest.mark.parametrize(("promise", "test"), ROWS, ids=[test.partition("::")[2].strip("`") for _, test in ROWS])
def test_every_promise_is_kept_by_a_test(promise, test):
    file, _, name = test.strip("`").partition("::")
    assert name.startswith("test_"), promise
    assert name in functions(ROOT / file), promise
