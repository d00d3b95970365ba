"""Lua scripts: each says what goes in and what comes out, and compiles behind its folder's prelude."""

from pathlib import Path

import pytest

import masksmith_state
from masksmith_state.scripts import GROWING, PRELUDE, Scripts, load

ROOT = Path(masksmith_state.__file__).parent
FILES = sorted(ROOT.rglob("*.lua"))
PACKAGES = sorted({".".join(("masksmith_state", *path.parent.parent.relative_to(ROOT).parts)) for path in FILES})


def test_every_script_begins_with_a_comment_that_names_its_arguments():
    assert len(FILES) > 20
    for path in FILES:
        comment, _, body = path.read_text().partition("\n\n")
        assert all(line.startswith("--") for line in comment.splitlines()), path
        assert body.strip(), path
        assert path.stem == PRELUDE or "-- ARGV: " in comment, path


def test_scripts_that_return_something_say_so():
    for path in FILES:
        comment, _, body = path.read_text().partition("\n\n")
        returns = any(line.startswith("return ") for line in body.splitlines())
        assert path.stem == PRELUDE or returns == ("-- Returns " in comment), path


@pytest.mark.parametrize("package", PACKAGES)
def test_scripts_compile_behind_their_prelude(package, records):
    texts = load(package)
    folder = ROOT.joinpath(*package.split(".")[1:]) / "lua"
    assert set(texts) == {path.stem for path in folder.glob("*.lua")} - {PRELUDE}
    prelude = folder / "_prelude.lua"
    shared = prelude.read_text() if prelude.exists() else ""
    for name, text in texts.items():
        flags = "" if name in GROWING else "#!lua flags=allow-oom\n"
        assert text.startswith(flags + shared)
        records.redis.script_load(text)


def test_a_name_that_is_no_script_is_an_error(records):
    with pytest.raises(KeyError):
        Scripts(records.redis, "masksmith_state.jobs").run("vanish")
