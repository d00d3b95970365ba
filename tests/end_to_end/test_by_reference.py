"""`masksmith prune --by-reference` with a service that has a root: what `--local` writes, byte for byte."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from masksmith_client import Client, InputError, NotFound
from masksmith_client.cli.app import run
from masksmith_wire.output_names import MASKS_NAME, RECORD_NAME

PATTERNS = ["-p", "2:4", "-p", "up_proj=transposable 4:8"]


@pytest.fixture(scope="module")
def root(shared_stack):
    """The root of the service, with a model of two files."""
    root = shared_stack.root
    (root / "model").mkdir(parents=True)
    rng, weight_map = np.random.default_rng(5), {}
    for layer in range(2):
        tensors = {
            f"model.layers.{layer}.{part}.weight": rng.standard_normal(shape, dtype=np.float32)
            for part, shape in (("q_proj", (64, 64)), ("up_proj", (96, 64)), ("down_proj", (64, 96)))
        }
        tensors[f"model.layers.{layer}.norm.weight"] = np.ones(64, np.float32)
        save_file(tensors, root / "model" / f"m-{layer}.safetensors", {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, f"m-{layer}.safetensors")
    (root / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (root / "model" / "tokenizer.json").write_text("{}")
    return root


def test_a_prune_by_reference_is_that_of_this_process(stack, root, tmp_path, capsys):
    model, local, referred = root / "model", tmp_path / "local", root / "pruned"
    command = ["prune", str(model), *PATTERNS]
    assert run([*command, "-o", str(local), "--local"]) == 0
    assert run([*command, "-o", str(referred), "--by-reference", "--url", stack.url]) == 0
    assert "6 of 8 tensor(s) masked" in capsys.readouterr().out
    names = sorted(path.name for path in local.iterdir())
    assert sorted(path.name for path in referred.iterdir()) == names
    for name in names:
        if name not in (MASKS_NAME, RECORD_NAME):
            assert (referred / name).read_bytes() == (local / name).read_bytes(), name
    assert run(["verify", str(referred / MASKS_NAME)]) == 0
    records = [json.loads((folder / RECORD_NAME).read_text()) for folder in (local, referred)]
    ours, theirs = ({each["name"]: each for each in record["tensors"]} for record in records)
    for name, tensor in theirs.items():
        expected = ours[name]
        assert tensor["masked"] == expected["masked"]
        assert (tensor["pattern"], tensor["axes"]) == (expected["pattern"], tensor["axes"])
        if tensor["masked"]:
            assert (tensor["kept"], tensor["status"], tensor["gap"]) == (expected["kept"], "optimal", 0.0)
            assert tensor["objective"] == pytest.approx(expected["objective"], rel=1e-12)
    # Its outputs have the digests of the record, by which `verify` finds what was changed later.
    assert run(["verify", str(referred), *PATTERNS]) == 0


def test_the_sdk_gives_the_record_and_names_what_is_wrong(stack, root, tmp_path):
    with Client(stack.url) as client:
        record = client.prune(root / "model", root / "sdk", "2:4", by_reference=True, progress=False)
        assert record == json.loads((root / "sdk" / RECORD_NAME).read_text())
        assert record["totals"]["density"] == 0.5
        with pytest.raises(NotFound, match="is in no root"):
            client.prune(tmp_path, root / "other", "2:4", by_reference=True, progress=False)
        with pytest.raises(NotFound, match=r"s3://nowhere/a.* is in no root"):
            client.prune("s3://nowhere/a", root / "other", "2:4", progress=False)
        with pytest.raises(InputError, match="no tensor is called"):
            client.prune(root / "model", root / "other", "2:4", layers="none", by_reference=True, progress=False)
    assert not (root / "other").exists()


@pytest.mark.parametrize("options", [["--local", "--by-reference"], ["--by-reference", "--threads", "2"]])
def test_a_local_prune_is_not_by_reference(root, options, capsys):
    assert run(["prune", str(root / "model"), "-p", "2:4", "-o", str(root / "other"), *options]) == 2
    assert "masksmith:" in capsys.readouterr().err
