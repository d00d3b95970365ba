"""Traces on disk: what they depend on, damaged files, and commands that do not import torch again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from masksmith import _torch_modes
from masksmith.layouts import layers, layout
from masksmith_client.checkpoints import config, trace, trace_cache, traced
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.checkpoints.tracing import watcher
from masksmith_client.cli.app import run
from masksmith_client.submission import modules

CONFIG, SHAPES = b'{"model_type": "llama"}', {"a": (4, 8), "b": (8,)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "masksmith" / "layouts"


def trace_of(path, **options):
    checkpoint = Checkpoint.open(path)
    return traced.trace(path, {name: each.shape for name, each in checkpoint.tensors.items()}, **options)


@pytest.fixture
def runs(monkeypatch):
    """The directories whose models are run."""
    directories, run = [], traced._run

    def recorded(directory, shapes, **options):
        directories.append(directory)
        return run(directory, shapes, **options)

    monkeypatch.setattr(traced, "_run", recorded)
    return directories


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "mixtral"])
def test_a_cached_trace_is_the_same(saved, runs, name):
    first = trace_of(saved(name))
    assert first.layouts
    assert trace_of(saved(name)) == first
    assert runs == [saved(name)]


@pytest.mark.parametrize("damage", [b"", b"{}", b"x\n{}"])
def test_a_damaged_trace_is_made_again(saved, runs, folder, damage):
    first = trace_of(saved("gpt2"))
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage)
    assert trace_of(saved("gpt2")) == first
    file.write_bytes(content.replace(b'"in"', b'"out"', 1).replace(b'"out"', b'"in"', 1))
    assert trace_of(saved("gpt2")) == first
    assert len(runs) == 3
    assert file.read_bytes() == content


def test_the_key_depends_on_config_shapes_and_versions(monkeypatch):
    key = trace_cache.trace_key(CONFIG, SHAPES)
    assert key == trace_cache.trace_key(CONFIG, dict(reversed(SHAPES.items())))
    others = {
        trace_cache.trace_key(CONFIG + b" ", SHAPES),
        trace_cache.trace_key(CONFIG, SHAPES | {"a": (8, 4)}),
        trace_cache.trace_key(CONFIG, {"a": (4, 8)}),
    }
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    others.add(trace_cache.trace_key(CONFIG, SHAPES))
    assert len(others | {key}) == 5


@pytest.mark.parametrize("module", [layout, layers, trace, traced, trace_cache, watcher, modules, config, _torch_modes])
def test_the_key_depends_on_the_code_that_makes_a_trace(module, monkeypatch):
    key, read_bytes = trace_cache.trace_key(CONFIG, SHAPES), Path.read_bytes

    def changed(path):
        return read_bytes(path) + b"#" * (path == Path(module.__file__))

    monkeypatch.setattr(Path, "read_bytes", changed)
    assert trace_cache.trace_key(CONFIG, SHAPES) != key


def test_nothing_is_cached_where_remote_code_is_trusted_or_the_model_is_unknown(saved, runs, folder, tmp_path):
    trace_of(saved("gpt2"), trust_remote_code=True)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unknown"}))
    assert traced.trace(tmp_path, SHAPES).notes
    assert len(runs) == 2
    assert not folder.exists()


def test_a_cache_that_cannot_be_written_is_not_used(saved, runs, folder):
    folder.parent.parent.mkdir()
    folder.parent.write_text("a file")
    assert trace_of(saved("gpt2")) == trace_of(saved("gpt2"))
    assert len(runs) == 2


def test_old_traces_are_deleted(saved, folder, monkeypatch):
    monkeypatch.setattr(trace_cache, "MAX_FILES", 2)
    for name in ("gpt2", "llama", "mixtral"):
        trace_of(saved(name))
    assert len(list(folder.iterdir())) == 2


def test_the_second_command_on_a_model_imports_neither_torch_nor_transformers(saved, runs, capsys):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['masksmith', 'inspect', {str(saved('gpt2'))!r}, '--json']\n"
        "try: runpy.run_module('masksmith_client.cli', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers'} & sys.modules.keys()), file=sys.stderr)"
    )
    assert run(["inspect", str(saved("gpt2")), "--json"]) == 0
    assert len(runs) == 1
    first, second = (
        capsys.readouterr().out,
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True),
    )
    assert second.stderr == "[]\n"
    assert json.loads(first) == json.loads(second.stdout)
