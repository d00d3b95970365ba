"""A run that is killed goes on after its last finished batch or block, and gives the same bits."""

import json
import signal
import subprocess
import sys

import pytest
from support.causal_models import causal_model
from support.language_models import prune_command, save_llama, save_tokenizer, write_text

from masksmith.model_pruning import block_run
from masksmith_client.cli.app import run
from masksmith_wire.output_names import BLOCKS_NAME, JOURNAL_NAME

KILLED_AT = """
import os, signal, sys
from pathlib import Path
os_replace, left = os.replace, int(sys.argv[1])
def replace(source, target, **options):
    # The process ends before the file gets its name, so the file does not count.
    global left
    if sys.argv[2] in str(target):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    os_replace(source, target, **options)
os.replace = replace
from masksmith_client.cli.app import run
sys.exit(run(sys.argv[3:]))
"""
WINDOWS = 8
UPDATE = ("--update", "admm max_rounds=2", "--tune-steps", "6", "--threads", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_llama(tmp_path_factory.mktemp("model") / "llama", num_hidden_layers=3, shard="60KB")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt", 1600)


def command(model, output, text):
    return prune_command(model, output, text, *UPDATE, windows=WINDOWS)


def contents(folder):
    """All files; of the reports what does not depend on the time."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("masksmith-blocks.html")
    for name in ("masksmith.json", "masksmith-blocks.json"):
        files[name] = without_seconds(json.loads(files[name]))
    return files


def without_seconds(document):
    if isinstance(document, dict):
        timeless = {key: value for key, value in document.items() if not key.endswith("_s") and key != "seconds"}
        return {key: without_seconds(value) for key, value in timeless.items()}
    return [without_seconds(each) for each in document] if isinstance(document, list) else document


def killed(arguments, number, part):
    """Run the command and kill it as it gives the numbered file with a part in its name its name."""
    process = subprocess.run([sys.executable, "-c", KILLED_AT, str(number), part, *arguments], check=False)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_is_killed_while_it_captures_keeps_the_captured_batches(model, text, tmp_path):
    output = tmp_path / "out"
    calls = output / BLOCKS_NAME / "activations" / "calls"
    killed(command(model, output, text), 3, "/calls/0")
    assert sorted(path.name for path in calls.glob("*.safetensors")) == ["00000.safetensors", "00001.safetensors"]
    first = (calls / "00000.safetensors").stat().st_mtime_ns
    killed(command(model, output, text), 2, "/block-0")
    assert (calls / "00000.safetensors").stat().st_mtime_ns == first


def test_a_killed_run_gives_the_same_bits(model, text, tmp_path, monkeypatch, capsys):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert run(command(model, whole, text)) == 0
    work = output / BLOCKS_NAME
    killed(command(model, output, text), 2, "/block-0")
    assert [path.name for path in work.glob("block-*.safetensors")] == ["block-00000.safetensors"]
    assert run([*command(model, output, text), "--order", "sequential"]) == 2
    message = capsys.readouterr().err.replace("\n", " ")
    assert "is the unfinished output of another run: options differ(s)" in message
    pruned = []
    prune_block = block_run.BlockRun.prune_block
    monkeypatch.setattr(
        block_run.BlockRun, "prune_block",
        lambda self, number, weights: pruned.append(number) or prune_block(self, number, weights),
    )  # fmt: skip
    assert run(command(model, output, text)) == 0
    assert pruned == [1, 2]
    assert contents(output) == contents(whole)
    assert not work.exists()
    assert not (output / JOURNAL_NAME).exists()


def test_the_file_of_a_finished_block_that_was_changed_is_named_and_kept(model, text, tmp_path, capsys, monkeypatch):
    output, prune_block = tmp_path / "out", block_run.BlockRun.prune_block

    def interrupt(self, number, weights):
        if number == 1:
            raise KeyboardInterrupt
        return prune_block(self, number, weights)

    monkeypatch.setattr(block_run.BlockRun, "prune_block", interrupt)
    assert run(command(model, output, text)) == 130
    file = output / BLOCKS_NAME / "block-00000.safetensors"
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert run(command(model, output, text)) == 2
    message = "".join(capsys.readouterr().err.split())
    assert f"{file} is not as prune wrote it".replace(" ", "") in message
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_an_interruption_keeps_the_captured_batches(model, text, tmp_path, capsys, monkeypatch):
    output, calls = tmp_path / "out", tmp_path / "out" / BLOCKS_NAME / "activations" / "calls"

    def interrupt(self, number, weights):
        raise KeyboardInterrupt

    monkeypatch.setattr(block_run.BlockRun, "prune_block", interrupt)
    assert run(command(model, output, text)) == 130
    assert "stopped; the same command continues from here" in capsys.readouterr().err
    times = [path.stat().st_mtime_ns for path in sorted(calls.glob("*.safetensors"))]
    assert len(times) == WINDOWS // 2
    assert run(command(model, output, text)) == 130
    assert [path.stat().st_mtime_ns for path in sorted(calls.glob("*.safetensors"))] == times


@pytest.mark.slow
@pytest.mark.parametrize("part", ["/after-00001/pruned/00001", "/inputs/00001", "model-00002", "/block-00002"])
def test_a_run_that_is_killed_elsewhere_gives_the_same_bits(model, text, tmp_path, part):
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert run(command(model, whole, text)) == 0
    killed(command(model, output, text), 1, part)
    assert run(command(model, output, text)) == 0
    assert contents(output) == contents(whole)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_a_killed_run_on_experts_with_all_options_gives_the_same_bits(kind, text, tmp_path):
    model, whole, output = tmp_path / "model", tmp_path / "whole", tmp_path / "out"
    causal_model(kind).save_pretrained(model, max_shard_size="40KB")
    save_tokenizer(model)
    options = (*UPDATE, "--order", "sequential")
    assert run(prune_command(model, whole, text, *options, windows=WINDOWS)) == 0
    killed(prune_command(model, output, text, *options, windows=WINDOWS), 2, "/block-0")
    assert run(prune_command(model, output, text, *options, windows=WINDOWS)) == 0
    assert contents(output) == contents(whole)
    report = json.loads((output / "masksmith-blocks.json").read_text())
    for block in report["blocks"]:
        assert block["tuning"]["error_after"] < block["tuning"]["error_before"]
        experts = [weight for weight in block["weights"] if "experts" in weight["name"]]
        assert len(experts) == {"mixtral": 12, "gpt_oss": 2}[kind]
        assert all(weight["error"] < weight["masked_error"] for weight in experts)
