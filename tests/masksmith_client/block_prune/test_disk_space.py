"""A disk that is too small is refused before anything is written, and the estimate covers what is written."""

import os
import shutil
import types

import pytest
from support.causal_models import causal_model
from support.language_models import prune_command, save_llama, save_tokenizer, write_text

from masksmith_client.cli.app import run
from masksmith_client.cli.block_prune import disk_space
from masksmith_client.cli.block_prune.run import BlockPruning

WINDOWS = 40
UPDATE = ("--update", "reconstruct", "--tune-steps", "2")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", 64 * WINDOWS)


@pytest.fixture
def estimates(monkeypatch):
    """The estimates of all runs."""
    made, space_of = [], disk_space.space_of

    def kept(*arguments, **options):
        made.append(space_of(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(disk_space, "space_of", kept)
    return made


@pytest.fixture
def largest(monkeypatch):
    """The most bytes that were in a folder at once, measured whenever a file gets its name."""
    most = {"bytes": 0}
    replace = os.replace

    def measured(source, target, **options):
        replace(source, target, **options)
        if "folder" in most:
            files = [path for path in most["folder"].rglob("*") if path.is_file()]
            most["bytes"] = max(most["bytes"], sum(path.stat().st_size for path in files))

    monkeypatch.setattr(os, "replace", measured)
    return most


def save(kind, folder):
    if kind == "llama":
        return save_llama(folder)
    causal_model(kind).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize(("kind", "update"), [("llama", UPDATE), ("llama", ()), ("gpt_oss", ())])
def test_the_estimate_covers_what_is_written(kind, update, text, tmp_path, estimates, largest, monkeypatch):
    output = largest["folder"] = tmp_path / "out"
    arguments = prune_command(save(kind, tmp_path / "model"), output, text, *update, windows=WINDOWS)
    assert run(arguments) == 0
    (space,) = estimates
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=0))
    assert run(arguments) == 0  # a finished output needs nothing
    assert largest["bytes"] <= space.peak <= 1.3 * largest["bytes"]


def test_a_disk_that_is_too_small_is_refused_before_any_work(text, tmp_path, estimates, monkeypatch, capsys):
    output = tmp_path / "out"
    arguments = prune_command(
        save_llama(tmp_path / "model", shard="20KB"), output, text, "--update", "reconstruct", windows=WINDOWS
    )
    free = {"bytes": 10**15}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free["bytes"]))
    monkeypatch.setattr(BlockPruning, "run", lambda self, batches: pytest.fail("it began"))
    with pytest.raises(pytest.fail.Exception):
        run(arguments)
    free["bytes"] = estimates[0].peak - 1
    shutil.rmtree(output, ignore_errors=True)
    assert run(arguments) == 1
    printed = " ".join(capsys.readouterr().err.split())
    assert "no space: " in printed
    assert "fewer --calibration-windows" in printed
    assert not output.exists()


def test_what_an_earlier_run_wrote_is_not_needed_again(tmp_path, monkeypatch):
    space = disk_space.Space(activations=1000, blocks=300, output=800)
    assert space.peak == 1300
    assert disk_space.Space(activations=10, blocks=300, output=800).peak == 1100
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "block").write_bytes(bytes(200))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1100))
    space.check(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1099))
    with pytest.raises(OSError, match=r"1.1 KiB are to be written, and .* are free: for activations 1,000 B"):
        space.check(tmp_path)
