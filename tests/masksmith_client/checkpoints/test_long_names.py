"""Files whose names are as long as file systems allow are written, though their temporary names would be longer."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from masksmith_client.checkpoints.partial_file import NAME_BYTES, PartialFile
from masksmith_client.cli.app import run
from masksmith_client.results.atomic_write import atomic_write
from masksmith_wire.output_names import MASKS_NAME

NAMES = [f"{'m' * (NAME_BYTES - 12)}.safetensors", f"{'é' * 121}.safetensors"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_with_a_long_name_is_written(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as file:
        file.write(b"first")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"first"}


@pytest.mark.parametrize("name", NAMES)
def test_a_later_run_continues_a_file_with_a_long_name(tmp_path: Path, name: str) -> None:
    with PartialFile(tmp_path / name) as part:
        part.write(b"first")
        digest = part.digest
    with PartialFile(tmp_path / name) as part:
        assert part.resume(5, digest)
        part.write(b", second")
        part.finish()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: b"first, second"}


@pytest.mark.parametrize("command", ["prune", "apply"])
def test_an_output_whose_name_is_too_long_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    model, masks, output = tmp_path / "model", tmp_path / "masks", tmp_path / ("o" * 300)
    model.mkdir()
    save_file({"layers.0.mlp.up.weight": np.ones((8, 8), np.float32)}, model / "model.safetensors")
    save_file({"layers.0.mlp.up.weight": np.ones((8, 8), np.bool_)}, masks)
    arguments = {
        "prune": ["prune", str(model), "-p", "2:4", "--local", "--threads", "1"],
        "apply": ["apply", str(masks), str(model)],
    }
    assert run([*arguments[command], "-o", str(output)]) == 2
    assert f"{output} cannot be written: File name too long" in capsys.readouterr().err


def test_a_model_in_a_file_with_a_long_name_is_pruned_and_copied(tmp_path: Path) -> None:
    model, pruned, applied = tmp_path / "model", tmp_path / "pruned", tmp_path / "applied"
    model.mkdir()
    save_file({"layers.0.mlp.up.weight": np.random.default_rng(0).normal(size=(8, 8))}, model / NAMES[0])
    (model / "config.json").write_text("{}")
    assert run(["prune", str(model), "-p", "2:4", "-o", str(pruned), "--local", "--threads", "1"]) == 0
    assert run(["apply", str(pruned / MASKS_NAME), str(model), "-o", str(applied)]) == 0
    assert load_file(applied / NAMES[0])["layers.0.mlp.up.weight"].astype(bool).mean() == 0.5
    assert (applied / NAMES[0]).read_bytes() == (pruned / NAMES[0]).read_bytes()
