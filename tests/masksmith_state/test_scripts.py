"""Lua scripts: each says what goes in and what comes out, and compiles behind what its folder's scripts share."""

from pathlib import Path

import pytest

import masksmith_state
from masksmith_state.scripts import GROWING, Scripts, load

ROOT = Path(masksmith_state.__file__).parent
FILES = sorted(ROOT.rglob("*.lua"))
PACKAGES = sorted({".".join(("masksmith_state", *path.parent.parent.relative_to(ROOT).parts)) for path in FILES})


def test_every_script_begins_with_a_comment_that_names_its_arguments():
    assert len(FILES) > 20
    for path in FILES:
        comment, _, body = path.read_text().partition("\n\n")
        assert all(line.startswith("--") for line in comment.splitlines()), path
        assert body.strip(), path
        assert path.stem.startswith("_") or "-- ARGV: " in comment, path


def test_scripts_that_return_something_say_so():
    for path in FILES:
        comment, _, body = path.read_text().partition("\n\n")
        returns = any(line.startswith("return ") for line in body.splitlines())
        assert path.stem.startswith("_") or returns == ("-- Returns " in comment), path


@pytest.mark.parametrize("package", PACKAGES)
def test_scripts_compile_behind_what_they_share(package, records):
    texts = load(package)
    folder = ROOT.joinpath(*package.split(".")[1:]) / "lua"
    assert set(texts) == {path.stem for path in folder.glob("[!_]*.lua")}
    for name, text in texts.items():
        assert text.startswith("#!lua flags=allow-oom\n") == (name not in GROWING)
        assert all(path.read_text() in text for path in folder.glob("_*.lua"))
        records.redis.script_load(text)


def test_a_name_that_is_no_script_is_an_error(records):
    with pytest.raises(KeyError):
        Scripts(records.redis, "masksmith_state.jobs").run("vanish")
