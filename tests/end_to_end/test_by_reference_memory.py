"""The memory of service and workers is bounded by the shard, however large the model that they prune by reference."""

import json
import shutil
import sys

import numpy as np
import pytest
from support.fleet import Fleet
from support.processes import memory_mib

from masksmith_client import Client
from masksmith_wire.headers import build_header
from masksmith_wire.output_names import JOURNAL_NAME

MIB = 2**20
ROWS, COLS = 2048, 4096
TENSOR_BYTES = 2 * ROWS * COLS
TENSORS = 8
"""Tensors of a file, which has 128 MiB."""


def write_model(folder, files):
    """Write a bfloat16 model whose tensors all repeat the same 16 MiB; gives its bytes."""
    folder.mkdir()
    values = np.random.default_rng(0).standard_normal(ROWS * COLS, dtype=np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    weight_map = {}
    for number in range(files):
        names = [f"model.layers.{number * TENSORS + each}.up_proj.weight" for each in range(TENSORS)]
        with (folder / f"m-{number:03}.safetensors").open("wb") as file:
            file.write(build_header(dict.fromkeys(names, ("BF16", (ROWS, COLS))), {"format": "pt"}))
            for _ in names:
                file.write(data)
        weight_map |= dict.fromkeys(names, f"m-{number:03}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return files * TENSORS * TENSOR_BYTES


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    yield root
    shutil.rmtree(root)


@pytest.fixture
def fleet(tmp_path, root):
    """A service and two workers of one slot each, with shards of the default size."""
    roots = json.dumps([{"url": str(root), "read": ["*"], "write": ["*"]}])
    (tmp_path / "fleet").mkdir()
    with Fleet(tmp_path / "fleet", workers=2, MASKSMITH_ROOTS=roots, MASKSMITH_SHARD_BYTES=str(2**24)) as fleet:
        yield fleet


def prune(fleet, model, output):
    with Client(fleet.url, timeout_s=600) as client:
        return client.prune(str(model), str(output), "2:4", by_reference=True, progress=False)


def peaks(fleet):
    """Most memory that the service and each worker have had with their children."""
    return [memory_mib(seat.process.pid, "VmHWM") for seat in [*fleet.services, *fleet.workers]]


def check(output, size):
    names = {path.name for path in output.iterdir()}
    assert JOURNAL_NAME not in names
    written = sum(path.stat().st_size for path in output.glob("m-*.safetensors"))
    assert written > size
    with next(output.glob("m-*.safetensors")).open("rb") as file:
        entries = np.frombuffer(file.read()[-TENSOR_BYTES:], np.uint16)
    assert np.count_nonzero(entries) / entries.size == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
def test_a_larger_model_takes_no_more_memory(fleet, root):
    write_model(root / "small", 1)
    prune(fleet, root / "small", root / "small-pruned")
    before = peaks(fleet)
    size = write_model(root / "model", 2)
    prune(fleet, root / "model", root / "pruned")
    after = peaks(fleet)
    check(root / "pruned", size)
    # A file has 128 MiB.
    assert all(now - then < 64 for now, then in zip(after, before, strict=True)), (before, after)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_gigabytes_go_through_two_workers_of_two(fleet, root, capsys):
    if shutil.disk_usage(root).free < 45e9:
        pytest.skip("needs 45 GB of disk")
    size = write_model(root / "model", 150)
    assert size > 20e9
    prune(fleet, root / "model", root / "pruned")
    service, *workers = peaks(fleet)
    with capsys.disabled():
        figures = f"service {service:.0f} MiB, workers {', '.join(f'{each:.0f}' for each in workers)} MiB at most"
        sys.stdout.write(f"\n{size / 1e9:.1f} GB by reference: {figures}\n")
    check(root / "pruned", size)
    assert service < 300
    assert max(workers) < 2048
