"""The recipes in docs/extend.md name files that exist and quote them as they are; test_pages runs their Python."""

import re

import pytest
from support.pages import ROOT, blocks, tables

EXTEND = ROOT / "docs" / "extend.md"
RECIPES = re.findall(r"^## (.*)$", EXTEND.read_text(), re.MULTILINE)
FILES = [row[0].strip("`") for table in tables(EXTEND, "file") for row in table]


def test_there_is_a_recipe_for_each_extension():
    assert RECIPES == [
        "Add a solver",
        "Add a pattern",
        "Add an endpoint",
        "Add a command",
        "Add a step of a job's life",
        "Add a kernel of a solver",
        "Add a sparse kernel",
    ]
    assert len(list(tables(EXTEND, "file"))) == len(RECIPES)


@pytest.mark.parametrize("path", sorted(set(FILES)))
def test_every_file_of_a_recipe_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


@pytest.mark.parametrize(("number", "block"), blocks(EXTEND, "py"))
def test_quoted_code_is_in_the_file_that_it_names(number, block):
    first, _, quoted = block.partition("\n")
    assert first.startswith("# ")
    assert quoted in (ROOT / first.removeprefix("# ")).read_text(), f"line {number}"


def test_no_other_code_is_left_unchecked():
    languages = set(re.findall(r"^```(\w+)$", EXTEND.read_text(), re.MULTILINE))
    assert languages == {"python", "py"}
