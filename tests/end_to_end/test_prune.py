"""`masksmith prune` through a service: what it writes is what `--local` writes, also when it was killed in between."""

import json
import signal
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.tiny_models import MODELS

from masksmith_client import JobFailedError
from masksmith_client.cli.app import run
from masksmith_wire.output_names import JOURNAL_NAME

BY_NAME = {model.name: model for model in MODELS}
PATTERNS = ["2:4", "self_attn=transposable 4:8"]
# The command, with small jobs, which stops for good after four tensors.
STALLED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # SIGINT is ignored in the background of a shell
from masksmith_client.checkpoints import remote
from masksmith_client.cli.app import run
remote.RemoteSolver.group_bytes = 20_000
_, _, *rest = remote.RemoteSolver.__init__.__defaults__
remote.RemoteSolver.__init__.__defaults__ = (None, 20_000, *rest)
certificate, left = remote._certificate, 4
def stalled(*arguments):
    global left
    if left == 0:
        time.sleep(3600)
    left -= 1
    return certificate(*arguments)
remote._certificate = stalled
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folders = {}

    def save(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name) / "model"
            kind, _, dtype = name.partition(" ")
            BY_NAME[kind].save(folders[name])
            if dtype:
                model = BY_NAME[kind].model_class.from_pretrained(folders[name], dtype=getattr(torch, dtype))
                model.save_pretrained(folders[name])
        return folders[name]

    return save


def command(model, output, *options):
    patterns = [word for pattern in PATTERNS for word in ("-p", pattern)]
    return ["prune", str(model), *patterns, "-o", str(output), *options]


def contents(folder):
    """All files; of the record all that does not depend on who solved."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    record = json.loads(files.pop("masksmith.json"))
    sums = []
    for tensor in (*record["tensors"], record["totals"]):
        tensor.pop("solve_s", None)
        tensor.get("update", {}).pop("update_s", None)
        # The service adds up shard by shard.
        sums += [tensor.pop(name) for name in ("objective", "upper_bound", "retained", "gap") if name in tensor]
        errors = tensor.get("update", {})
        sums += [errors.pop(name) for name in ("error", "masked_error", "energy") if name in errors]
    return files, record, np.array(sums, float)


def inspected(model, tmp_path):
    with (tmp_path / "inspected.json").open("w") as file, redirect_stdout(file):
        assert run(["inspect", str(model), "-p", "2:4", "--json"]) == 0
    return json.loads((tmp_path / "inspected.json").read_text())["tensors"]


def check_equal(one, other):
    for ours, theirs in zip(contents(one)[:2], contents(other)[:2], strict=True):
        assert ours == theirs
    np.testing.assert_allclose(contents(one)[2], contents(other)[2], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("llama", "magnitude"),
        pytest.param("mistral bfloat16", "magnitude", marks=pytest.mark.slow),
        pytest.param("mistral bfloat16", "magnitude power=2", marks=pytest.mark.slow),
        ("mistral bfloat16", "ria power=0"),
        ("gpt2", "ria power=0"),
        ("mixtral", "magnitude"),
        ("qwen3_moe", "magnitude"),
        ("gpt_oss", "magnitude power=2"),
    ],
)
def test_a_service_gives_what_this_process_gives(stack, saved, tmp_path, kind, scores):
    name = kind.partition(" ")[0]
    others = [] if name == "gpt2" else ["-p", PATTERNS[1]]
    for where, output in ((["--url", stack.url], "remote"), (["--local"], "local")):
        options = ["-o", str(tmp_path / output), "--scores", scores, *where]
        assert run(["prune", str(saved(kind)), "-p", "2:4", *others, *options]) == 0
    check_equal(tmp_path / "remote", tmp_path / "local")
    record = contents(tmp_path / "remote")[1]
    masked = [tensor["name"] for tensor in record["tensors"] if tensor["masked"]]
    assert masked
    assert all(BY_NAME[name].is_masked(tensor) for tensor in masked)
    model = BY_NAME[name].model_class.from_pretrained(tmp_path / "remote")
    with torch.no_grad():
        assert torch.isfinite(model(**BY_NAME[name].batch(1)).logits).all()
    assert run(["verify", str(tmp_path / "remote" / "masks.safetensors")]) == 0


@pytest.mark.parametrize(
    ("kind", "scores", "update"),
    [
        ("mistral bfloat16", "wanda", "reconstruct"),
        ("gpt2", "sparsegpt damping=0.1", "reconstruct damping=0.1"),
        ("gpt_oss", "wanda", "reconstruct"),
        ("mixtral", "magnitude", "admm max_rounds=3"),
        pytest.param("gpt_oss", "magnitude", "admm max_rounds=3", marks=pytest.mark.slow),
        ("llama", "ria power=0.7", None),
    ],
)
def test_a_service_updates_weights_as_this_process_does(stack, client, saved, tmp_path, kind, scores, update):
    name = kind.partition(" ")[0]
    rng, statistics = np.random.default_rng(0), {}
    masked = [tensor for tensor in inspected(saved(kind), tmp_path) if tensor["masked"]]
    for tensor in masked:
        axes, shape = tensor["axes"].split(), tensor["shape"]
        stack_shape = shape[: axes.count("stack")]
        inputs = rng.standard_normal((*stack_shape, 99, shape[axes.index("in")])) * rng.uniform(0.1, 3)
        statistics[f"{tensor['name']}/norms"] = np.linalg.norm(inputs, axis=-2)
        statistics[f"{tensor['name']}/gram"] = inputs.swapaxes(-1, -2) @ inputs
    calibration = str(tmp_path / "statistics.safetensors")
    save_file(statistics, calibration)
    options = ["--scores", scores, "--calibration", calibration, *([] if update is None else ["--update", update])]
    for where, output in ((["--url", stack.url], "remote"), (["--local"], "local")):
        assert run(["prune", str(saved(kind)), "-p", "2:4", "-o", str(tmp_path / output), *options, *where]) == 0
    check_equal(tmp_path / "remote", tmp_path / "local")
    tensors = [tensor for tensor in contents(tmp_path / "remote")[1]["tensors"] if tensor["masked"]]
    assert len(tensors) == len(masked)
    assert all(tensor.get("update", {}).get("method") == update for tensor in tensors)
    model = BY_NAME[name].model_class.from_pretrained(tmp_path / "remote")
    with torch.no_grad():
        assert torch.isfinite(model(**BY_NAME[name].batch(1)).logits).all()
    # The SDK finishes what is finished already: its options mean the same.
    options = {} if update is None else {"update": update}
    client.prune(saved(kind), tmp_path / "remote", "2:4", scores=scores, calibration=calibration, **options)


def test_the_sdk_has_the_same_door(client, saved, tmp_path):
    record = client.prune(saved("llama"), tmp_path / "remote", PATTERNS, exclude="*.k_proj.weight")
    assert run(command(saved("llama"), tmp_path / "local", "--local", "--exclude", "*.k_proj.weight")) == 0
    check_equal(tmp_path / "remote", tmp_path / "local")
    assert record == json.loads((tmp_path / "remote" / "masksmith.json").read_text())


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_was_ended_goes_on_and_nothing_is_solved_again(stack, poll, tmp_path, number):
    model, output = tmp_path / "model", tmp_path / "out"
    # Weights that no other test has solved.
    torch.manual_seed(100 + number)
    kind = BY_NAME["llama"].model_class
    kind(kind.config_class(**BY_NAME["llama"].settings)).save_pretrained(model)
    arguments = command(model, output, "--url", stack.url)
    before = {job["id"] for job in stack.http.get("/v1/jobs").json()["jobs"]}
    process = subprocess.Popen([sys.executable, "-c", STALLED, *arguments], stderr=subprocess.PIPE, text=True)
    journal = output / JOURNAL_NAME
    poll(lambda: (journal.exists() and journal.read_bytes().count(b"\n") >= 4) or process.poll() is not None)
    process.send_signal(number)
    error = process.communicate()[1]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), error
    done = journal.read_bytes().count(b'{"tensor"')
    assert 3 <= done < 14
    if number == signal.SIGINT:
        assert "the same command continues from here" in error
        new = [job for job in stack.http.get("/v1/jobs").json()["jobs"] if job["id"] not in before]
        assert new
        assert all(job["state"] in ("succeeded", "canceled") for job in new)
    assert run(arguments) == 0
    last = stack.http.get("/v1/jobs").json()["jobs"][0]
    assert stack.job(last["id"])["progress"]["total"] == 14 - done
    assert run(command(model, tmp_path / "local", "--local")) == 0
    check_equal(output, tmp_path / "local")


def test_a_tensor_that_cannot_be_solved_leaves_no_output(client, tmp_path):
    weights = {f"l.{number}.w": np.ones((8, 8), np.float32) for number in range(2)}
    weights["l.1.w"][3, 4] = np.nan
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(JobFailedError, match=r"l\.1\.w.*\[3, 4\]"):
        client.prune(tmp_path / "model.safetensors", tmp_path / "out", "2:4")
    assert not (tmp_path / "out").exists()
