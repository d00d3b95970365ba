"""`prune` streams: its memory is bounded by the largest tensor, not by the checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from masksmith_wire.headers import build_header

HIDDEN, INTERMEDIATE, LAYERS = 1024, 8192, 60
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_attention_heads": 8,
    "num_hidden_layers": LAYERS,
    "vocab_size": 64,
    "tie_word_embeddings": True,
}
LARGEST = 2 * HIDDEN * INTERMEDIATE
LIMIT = 2**30 + 3 * LARGEST


def write_checkpoint(folder: Path) -> int:
    """Write a bfloat16 checkpoint in which all matrices hold the same random numbers; gives its bytes."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(HIDDEN * INTERMEDIATE, dtype=np.float32).view(np.uint32) >> 16
    data = values.astype(np.uint16).tobytes()
    shapes = {"model.embed_tokens.weight": (64, HIDDEN), "model.norm.weight": (HIDDEN,)}
    for number in range(LAYERS):
        block = f"model.layers.{number}"
        shapes |= {f"{block}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{block}.mlp.{part}_proj.weight": (INTERMEDIATE, HIDDEN) for part in ("gate", "up")}
        shapes[f"{block}.mlp.down_proj.weight"] = (HIDDEN, INTERMEDIATE)
        shapes |= {f"{block}.{part}_layernorm.weight": (HIDDEN,) for part in ("input", "post_attention")}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(build_header({name: ("BF16", shape) for name, shape in shapes.items()}))
        for number, shape in enumerate(shapes.values()):
            # Rotated, so that no two tensors are equal, which would be solved once.
            size = 2 * int(np.prod(shape))
            turned = 2 * number
            file.write((data[turned : turned + size] + data[:turned])[:size])
        return file.tell()


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path, pattern: str) -> None:
    total = write_checkpoint(tmp_path / "model")
    assert total > 2 * LIMIT
    command = [Path(sys.executable).with_name("masksmith"), "prune", tmp_path / "model", "-p", pattern, "--local"]
    process = subprocess.Popen([*command, "-o", tmp_path / "pruned", "--json"], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert (tmp_path / "pruned" / "model.safetensors").stat().st_size == total
    assert usage.ru_maxrss * 1024 <= LIMIT, f"{usage.ru_maxrss / 1024:.0f} MiB"
