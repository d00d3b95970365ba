"""A model twice as large as the memory that a process may still take goes through; loaded as a whole, it does not."""

import re
import subprocess
import sys

import pytest
from support.language_models import prune_command, save_llama, write_text

# Imports and kernels are loaded by a first, tiny model; what counts is what the second one takes.
LIMITED = """
import ast, resource, sys, threading
threading.stack_size(2**20)
from masksmith_client.cli.app import run
tiny, large = map(ast.literal_eval, sys.argv[1:3])
allowed, loads = int(sys.argv[3]), sys.argv[4]
import torch, transformers
torch.set_num_threads(1)
def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))
def load(arguments):
    transformers.AutoModelForCausalLM.from_pretrained(arguments[1], dtype=torch.float32)
    return 0
job = load if loads == "whole" else run
assert job(tiny) == 0
before = status("VmSize")
resource.setrlimit(resource.RLIMIT_AS, (before + allowed, before + allowed))
try:
    code = job(large)
except (MemoryError, RuntimeError) as error:
    print("out of memory:", type(error).__name__, str(error)[:200])
    sys.exit(3)
print(f"peak {status('VmPeak') - before} of {allowed} bytes allowed")
sys.exit(code)
"""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


def limited(tmp_path, monkeypatch, layers, update, *, loads="blocks"):
    """Prune, or load, a model in a process that may take half of its size in float32; return its size as well."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    wide = {"hidden_size": 384, "intermediate_size": 768, "num_attention_heads": 4}
    large = save_llama(tmp_path / "large", num_hidden_layers=layers, shard="4MB", **wide)
    tiny = save_llama(tmp_path / "tiny")
    text = write_text(tmp_path / "text.txt")
    size = 4 * layers * (4 * 384 * 384 + 3 * 384 * 768)
    commands = [
        prune_command(model, tmp_path / f"{model.name}-out", text, "--threads", "1", *update) for model in (tiny, large)
    ]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(repr, commands), str(size // 2), loads],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    sys.stdout.write(f"{result.stdout[-400:]}\n{result.stderr[-2000:]}\n")
    return result, size


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "update"), [(20, ("--layers", "*.mlp.*")), (40, ("--update", "admm max_rounds=4"))])
def test_a_model_twice_as_large_as_the_memory_goes_through(tmp_path, monkeypatch, layers, update):
    result, size = limited(tmp_path, monkeypatch, layers, update)
    assert result.returncode == 0
    peak = int(re.search(r"peak (\d+) of", result.stdout)[1])
    sys.stdout.write(f"a model of {size} bytes in float32 took {peak} bytes\n")
    assert 2 * peak <= size
    weights = sum(path.stat().st_size for path in (tmp_path / "large-out").glob("model-*.safetensors"))
    assert weights > size // 2


@pytest.mark.slow
def test_the_limit_is_too_small_for_the_whole_model(tmp_path, monkeypatch):
    result, _ = limited(tmp_path, monkeypatch, 20, (), loads="whole")
    assert result.returncode == 3
