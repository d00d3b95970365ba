import ast
import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save_file
from safetensors.torch import load_file as load_torch

from masksmith_client import InputError
from masksmith_client.checkpoints.conversion_advice import STATE_DICT_KEYS
from masksmith_client.submission.files import list_tensors
from masksmith_client.submission.streamed_tensor import KEY

ARRAYS = {"x.weight": np.arange(12.0).reshape(3, 4), "y.weight": np.ones((2, 2), np.float16), "y.bias": np.ones(3)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(ARRAYS, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    folder.mkdir()
    shards = {"one.safetensors": ["x.weight"], "two.safetensors": ["y.weight", "y.bias"]}
    for name, members in shards.items():
        save_file({member: ARRAYS[member] for member in members}, folder / name)
    weight_map = {member: name for name, members in shards.items() for member in members}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def test_every_tensor_of_a_file_is_read_as_it_is(file: Path) -> None:
    found = {weight.name: load(b"".join(map(bytes, weight.pieces())))[KEY] for weight in list_tensors(file)}
    assert found.keys() == ARRAYS.keys()
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


def test_a_directory_with_one_file_means_that_file(file: Path) -> None:
    assert [w.name for w in list_tensors(file.parent)] == [w.name for w in list_tensors(file)]


def test_sharded_checkpoints_are_one(index: Path) -> None:
    assert {weight.name for weight in list_tensors(index)} == ARRAYS.keys()
    assert {weight.name for weight in list_tensors(index.parent)} == ARRAYS.keys()


def test_a_directory_with_several_files_and_no_index_asks_which(file: Path) -> None:
    save_file(ARRAYS, file.with_name("other.safetensors"))
    with pytest.raises(InputError, match="name one of them"):
        list_tensors(file.parent)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(InputError, match=r"pickle.*safetensors\.torch"):
            list_tensors(path)


@pytest.mark.parametrize("key", [None, *STATE_DICT_KEYS])
def test_the_command_for_a_pickle_converts_tied_and_transposed_tensors(tmp_path: Path, key: str | None) -> None:
    """In a state dict, and in a training checkpoint that has one beside other members; run from another directory."""
    weight = torch.randn(8, 4)
    state = {"wte.weight": weight, "lm_head.weight": weight, "h.0.w.weight": torch.randn(4, 8).t()}
    torch.save(state if key is None else {key: state, "epoch": 3, "optimizer": {}}, tmp_path / "model.bin")
    with pytest.raises(InputError) as caught:
        list_tensors(tmp_path)
    _, _, command = shlex.split(str(caught.value).partition("Convert it once: ")[2])
    exec(command, {})
    converted = load_torch(tmp_path / "model.safetensors")
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in state.items())
    assert list_tensors(tmp_path / "model.safetensors")


def test_no_part_of_the_name_of_a_pickle_is_run_by_the_shell(tmp_path: Path) -> None:
    name = "$(echo run) `echo run` \"é' \\.bin"
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(InputError) as caught:
        list_tensors(tmp_path)
    command = str(caught.value).partition("Convert it once: python -c ")[2]
    code = subprocess.run(["sh", "-c", f"printf %s {command}"], capture_output=True, check=True).stdout.decode()
    constants = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert str(tmp_path / name) in constants


@pytest.mark.parametrize(
    ("name", "kind"),
    [("pytorch_model-00001-of-00002.bin", "a pickle"), ("pytorch_model.bin.index.json", "the index of pickles")],
)
def test_a_pickle_in_several_parts_is_converted_by_its_model(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match=rf"{name} is {kind}, which can .*from_pretrained\(.*\)\.save_pretrained"):
        list_tensors(tmp_path / name)


def test_a_distributed_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for name in (".metadata", "__0_0.distcp"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"dcp_to_torch.*save_file"):
        list_tensors(tmp_path)


@pytest.mark.parametrize("below", ["unet", "snapshots/abc", "models--org--name/snapshots/abc"])
def test_a_directory_of_models_names_them(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True)
    save_file(ARRAYS, tmp_path / below / "model.safetensors")
    with pytest.raises(InputError, match=f"name one of them: .*{below}$"):
        list_tensors(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\xff" * 40, b"PK\x03\x04 a zip file of some kind", b"\x10\0\0\0\0\0\0\0{}"]
)
def test_broken_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.safetensors"):
        list_tensors(path)


def test_truncated_files_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="truncated"):
        list_tensors(file)


@pytest.mark.parametrize("target", ["../model.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_an_index_cannot_lead_elsewhere(tmp_path: Path, target: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"x": target}}))
    with pytest.raises(InputError, match="outside"):
        list_tensors(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON: it is empty"),
        ("{", "is not JSON; download it again"),
        *((text, "it has no 'weight_map'") for text in ("[]", "{}", '{"weight_map": 3}')),
    ],
)
def test_what_is_no_index_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list_tensors(path)


def test_an_index_that_promises_too_much_is_refused(index: Path) -> None:
    document = json.loads(index.read_text())
    document["weight_map"]["ghost"] = "one.safetensors"
    index.write_text(json.dumps(document))
    with pytest.raises(InputError, match="ghost"):
        list_tensors(index)


def test_a_file_that_shrinks_while_it_is_read_is_noticed(file: Path) -> None:
    weights = list_tensors(file)
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(InputError, match="changed"):
        [list(weight.pieces()) for weight in weights]


def test_what_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list_tensors(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match=r"contains no \.safetensors"):
        list_tensors(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "consolidated.00.pth",
        "mp_rank_00_model_states.pt",
        "iter_0000001/mp_rank_00/model_optim_rng.pt",
        "global_step5/layer_01-model_00-model_states.pt",
    ],
)
def test_a_model_whose_tensors_are_split_over_pickles_is_not_converted_file_by_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"tensors are split over several files") as caught:
        list_tensors(tmp_path)
    assert str(path) in str(caught.value)
    assert "torch.load" not in str(caught.value)
