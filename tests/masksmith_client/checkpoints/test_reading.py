"""Checkpoints on disk: what is read, in which order, and what is refused by name."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from masksmith_client import InputError
from masksmith_client.checkpoints import ties
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.submission.files import list_tensors

ONE, SEVEN = np.full((16, 16), 1, np.float32), np.full((16, 16), 7, np.float32)
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_index(folder: Path, weight_map: dict[str, str]) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def value(path: Path, name: str) -> float:
    weights = {weight.name: weight for weight in list_tensors(path)}
    return float(np.frombuffer(b"".join(weights[name].read()), np.float32)[0])


@pytest.fixture
def doubled(tmp_path: Path) -> Path:
    """A tensor in two files; the index names the first."""
    save_file({"a.weight": ONE, "b.weight": ONE}, tmp_path / FIRST)
    save_file({"a.weight": SEVEN, "c.weight": ONE}, tmp_path / SECOND)
    write_index(tmp_path, {"a.weight": FIRST, "b.weight": FIRST, "c.weight": SECOND})
    return tmp_path


def test_the_index_decides_which_file_holds_a_tensor(doubled: Path) -> None:
    assert value(doubled, "a.weight") == 1
    (note,) = Checkpoint.open(doubled).notes
    assert SECOND in note
    assert "'a.weight'" in note
    write_index(doubled, {"a.weight": SECOND, "b.weight": FIRST, "c.weight": SECOND})
    assert value(doubled, "a.weight") == 7


def test_an_index_that_its_files_contradict_is_refused_by_name(doubled: Path) -> None:
    write_index(doubled, {"a.weight": FIRST, "b.weight": SECOND, "c.weight": FIRST})
    with pytest.raises(InputError, match=rf"'b\.weight' in {SECOND}, but that file does not contain it; {FIRST} does"):
        list_tensors(doubled)


def test_two_versions_of_a_tensor_that_differ_in_shape_are_refused(doubled: Path) -> None:
    save_file({"a.weight": ONE[:8], "c.weight": ONE}, doubled / SECOND)
    with pytest.raises(InputError, match=r"a\.weight.*\[8, 16\].*\[16, 16\]"):
        Checkpoint.open(doubled)


def test_a_tensor_that_the_index_forgets_is_one_of_the_tensors_and_reported(doubled: Path) -> None:
    write_index(doubled, {"a.weight": FIRST, "b.weight": FIRST})
    save_file({"a.weight": ONE, "b.weight": ONE, "d.weight": ONE}, doubled / FIRST)
    checkpoint = Checkpoint.open(doubled)
    assert list(checkpoint.tensors) == ["a.weight", "b.weight", "d.weight"]
    assert checkpoint.tensors["d.weight"].file.name == FIRST
    assert "'d.weight', which the index does not list" in checkpoint.notes[0]


def test_a_missing_file_is_named(doubled: Path) -> None:
    (doubled / SECOND).unlink()
    with pytest.raises(InputError, match=f"{SECOND} is missing"):
        Checkpoint.open(doubled)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Repository not found</body></html>", "HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.", "pickle"),
        (b"PK\x03\x04" + bytes(60), "torch.save"),
        (b"GGUF\x03\x00\x00\x00" + bytes(60), "GGUF"),
        (b"", "empty"),
        (bytes(64), "unfinished download"),
        (b'{"error": "Entry not found"}', "JSON"),
        (b"\xef\xbb\xbfversion https://git-lfs.github.com/spec/v1\r\noid sha256:", "git lfs pull"),
        (b"/annex/objects/SHA256E-s123--0a.safetensors\n", "git annex get"),
        (b"# xet version 0\nfilesize = 10\n", "Xet pointer"),
        ("Zugriff verweigert für x\nmore".encode(), "text, which begins with 'Zugriff verweigert für x'"),
        (b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", "numpy"),
        (b"\x08\x07\x12\x07pytorch" + bytes(64), "an ONNX model"),
        (b"\xfd7zXZ\x00\x00\x04" + bytes(64), "decompress"),
        (b"PK\x03\x04" + bytes(26) + b"weight.npy\x93NUMPY" + bytes(60), r"an archive of numpy \(\.npz\)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture"),
        (b"model.safetensors".ljust(257, b"\0") + b"ustar\x0000", "a tar archive; extract it with 'tar -xf'"),
        (b"lmgg" + bytes(60), "GGML"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(60), "TensorFlow Lite"),
        (b"\x7fELF\x02\x01\x01" + bytes(60), "ELF"),
        (b"<<<<<<< HEAD\n" + bytes(60), "git wrote both versions"),
        (b" " * 64, "blank"),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08" + bytes(64), "its header claims"),
    ],
)
def test_what_a_file_really_is_is_said(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"model\.safetensors.*{message}"):
        list_tensors(tmp_path)


def test_metadata_may_be_null(tmp_path: Path) -> None:
    text = b'{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert Checkpoint.open(tmp_path).metadata == {}
    assert load_file(tmp_path / "model.safetensors")["a"].shape == (1,)


def test_an_unknown_dtype_is_refused_by_name(tmp_path: Path) -> None:
    text = b'{"w":{"dtype":">f4","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(InputError, match=r"'w' has unknown dtype '>f4'"):
        Checkpoint.open(tmp_path)


def test_tensors_come_in_the_models_order(tmp_path: Path) -> None:
    ordered = [
        "model.embed_tokens.weight",
        *(f"model.layers.{number}.w.weight" for number in (0, 2, 9, 10, 11)),
        "model.norm.weight",
        "lm_head.weight",
    ]
    save_file(dict.fromkeys(sorted(ordered), ONE), tmp_path / "model.safetensors")
    assert list(Checkpoint.open(tmp_path).tensors) == ordered
    assert [weight.name for weight in list_tensors(tmp_path)] == ordered


def test_encoders_come_before_decoders(tmp_path: Path) -> None:
    ordered = ["shared.weight", "encoder.block.0.w", "encoder.block.11.w", "decoder.block.0.w"]
    save_file(dict.fromkeys(sorted(ordered), ONE), tmp_path / "model.safetensors")
    assert list(Checkpoint.open(tmp_path).tensors) == ordered


def llama(folder: Path, **config: Any) -> Path:
    tensors = {f"model.layers.{number}.mlp.up_proj.weight": ONE for number in range(2)}
    save_file(tensors | {"model.embed_tokens.weight": np.ones((32, 16), np.float32)}, folder / "model.safetensors")
    whole = {"model_type": "llama", "hidden_size": 16, "vocab_size": 32, "num_hidden_layers": 2} | config
    (folder / "config.json").write_text(json.dumps(whole))
    return folder


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hidden_size": 24}, r"hidden_size=24.*\[32, 16\]"),
        ({"vocab_size": 64}, r"vocab_size=64.*\[32, 16\]"),
        ({"num_hidden_layers": 3}, r"3 blocks.*no tensor of model\.layers\.2"),
        ({"num_hidden_layers": 1}, r"1 blocks.*tensors of model\.layers\.1"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    assert Checkpoint.open(llama(tmp_path)).config is not None
    with pytest.raises(InputError, match=message):
        Checkpoint.open(llama(tmp_path, **config))


def test_a_config_may_contradict_tensors_that_the_index_does_not_list(tmp_path: Path) -> None:
    blocks = [f"model.layers.{block}.q.weight" for block in range(3)]
    save_file(dict.fromkeys(blocks, ONE), tmp_path / FIRST)
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 1}')
    assert list(Checkpoint.open(write_index(tmp_path, {blocks[0]: FIRST})).unlisted) == blocks[1:]


def test_layers_of_predictions_may_be_beyond_the_blocks(tmp_path: Path) -> None:
    Checkpoint.open(llama(tmp_path, num_hidden_layers=1, num_nextn_predict_layers=1))


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    (llama(tmp_path) / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "not JSON: it is a Git LFS pointer"),
        (b"<html>Sign in</html>", "not JSON: it is an HTML page"),
        (b"", "not JSON: it is empty"),
        (b'{"weight_map": {', "not JSON; download it again"),
        (b"[" * 100_000, "not JSON; download it again"),
        (b"\xef\xbb\xbf \n", "not JSON: it is blank"),
        (b"\xef\xbb\xbf", "not JSON: it is empty"),
        (b'{\n<<<<<<< HEAD\n"a": 1\n=======\n"a": 2\n>>>>>>> b\n}', "not JSON: it is in conflict: git wrote both"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_what_a_json_file_really_is_is_said(doubled: Path, name: str, content: bytes, message: str) -> None:
    (doubled / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is {message}"):
        Checkpoint.open(doubled)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_member_that_is_given_twice_is_refused(doubled: Path, name: str) -> None:
    (doubled / name).write_text('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}')
    with pytest.raises(InputError, match=f"{name}: the member 'a' is given twice"):
        Checkpoint.open(doubled)


def test_the_error_of_a_server_is_no_config(tmp_path: Path) -> None:
    (llama(tmp_path) / "config.json").write_text('{"error": "Repository not found"}')
    with pytest.raises(
        InputError, match=r"config\.json is a server's error instead of the file: 'Repository not found'"
    ):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("name", ["config.json", SECOND])
def test_a_pipe_in_a_checkpoint_is_refused_before_it_is_opened(doubled: Path, name: str) -> None:
    (doubled / name).unlink(missing_ok=True)
    os.mkfifo(doubled / name)
    with pytest.raises(InputError, match=f"{name} is not a regular file but a pipe"):
        Checkpoint.open(doubled)


def test_a_directory_that_cannot_be_listed_is_named(doubled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=f"{doubled} cannot be read: Permission denied"):
        Checkpoint.open(doubled)


def test_an_index_of_nothing_is_refused(doubled: Path) -> None:
    write_index(doubled, {})
    with pytest.raises(InputError, match=r"index\.json lists no tensor: download it again"):
        Checkpoint.open(doubled)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", SECOND])
def test_a_link_to_nothing_is_named_with_its_target(doubled: Path, name: str) -> None:
    (doubled / name).unlink(missing_ok=True)
    (doubled / name).symlink_to("../../blobs/0a")
    with pytest.raises(InputError, match=rf"{name} cannot be read: No such file or directory; it is a link to .*0a"):
        Checkpoint.open(doubled)


def test_a_part_of_a_model_without_its_index_is_refused_unless_it_is_named(doubled: Path) -> None:
    (doubled / "model.safetensors.index.json").unlink()
    (doubled / SECOND).unlink()
    with pytest.raises(InputError, match=f"contains {FIRST}, one of 2 parts of a model, and no index: download it"):
        Checkpoint.open(doubled)
    assert list(Checkpoint.open(doubled / FIRST).tensors) == ["a.weight", "b.weight"]
    (doubled / FIRST).rename(doubled / "model-00001-of-00001.safetensors")
    assert value(doubled, "a.weight") == 1


def test_a_single_file_and_an_index_that_ignores_it_are_ambiguous(doubled: Path) -> None:
    save_file({"a.weight": ONE}, doubled / "model.safetensors")
    with pytest.raises(InputError, match="name one of them"):
        Checkpoint.open(doubled)


@pytest.mark.parametrize("listed", ["model.safetensors.old", "my-model.safetensors"])
def test_an_index_of_a_longer_name_does_not_list_a_single_file(tmp_path: Path, listed: str) -> None:
    save_file({"a.weight": ONE}, tmp_path / "model.safetensors")
    write_index(tmp_path, {"a.weight": listed})
    with pytest.raises(InputError, match="which does not list it; name one of them"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("listed", ["model.safetensors.bak", "my-model.safetensors"])
def test_an_index_of_a_longer_name_makes_no_part_of_a_file(tmp_path: Path, listed: str) -> None:
    file = llama(tmp_path, num_hidden_layers=3) / "model.safetensors"
    index = write_index(tmp_path, {"a.weight": listed})
    with pytest.raises(InputError, match="3 blocks"):
        Checkpoint.open(file)
    index.write_text("{}")
    with pytest.raises(InputError, match="3 blocks"):
        Checkpoint.open(file)


def test_a_file_that_an_index_lists_is_only_a_part_of_the_config(tmp_path: Path) -> None:
    file = llama(tmp_path, num_hidden_layers=3) / "model.safetensors"
    index = write_index(tmp_path, {"model.embed_tokens.weight": file.name})
    assert len(Checkpoint.open(file).tensors) == 3
    index.write_text("broken")
    assert len(Checkpoint.open(file).tensors) == 3


def test_a_consolidated_copy_is_no_candidate(tmp_path: Path) -> None:
    save_file({"a.weight": ONE}, tmp_path / "model.safetensors")
    save_file({"a.weight": SEVEN}, tmp_path / "consolidated.safetensors")
    assert value(tmp_path, "a.weight") == 1


def test_a_gguf_file_in_a_directory_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model-Q4_K_M.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(InputError, match=r"Q4_K_M\.gguf is a GGUF file.*dequantize"):
        Checkpoint.open(tmp_path)


def test_repeated_matrices_are_ties_and_equal_initial_values_are_not(tmp_path: Path) -> None:
    matrix = np.arange(256, dtype=np.float32).reshape(16, 16)
    tensors = {"embed.weight": matrix, "lm_head.weight": matrix, "x.weight": ONE, "y.weight": ONE, "z.weight": -matrix}
    save_file(tensors, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).ties == {"lm_head.weight": "embed.weight"}


def test_equal_matrices_of_int8_with_scales_are_no_ties(tmp_path: Path) -> None:
    matrix = np.arange(64, dtype=np.int8).reshape(8, 8)
    save_file({"embed.weight": matrix, "lm_head.weight": matrix}, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).ties == {"lm_head.weight": "embed.weight"}
    scales = {"embed.SCB": np.ones(8, np.float32), "lm_head.SCB": np.full(8, 2, np.float32)}
    save_file({"embed.weight": matrix, "lm_head.weight": matrix, **scales}, tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).ties == {}


def test_equal_matrices_of_two_blocks_are_no_ties(tmp_path: Path) -> None:
    matrix = np.arange(256, dtype=np.float32).reshape(16, 16)
    experts = [f"model.layers.0.experts.{expert}.up.weight" for expert in range(3)]
    save_file(dict.fromkeys([*experts, "model.layers.1.mlp.up.weight"], matrix), tmp_path / "model.safetensors")
    assert Checkpoint.open(tmp_path).ties == {}


@pytest.mark.parametrize(("tied", "absent"), [(True, {"lm_head.weight"}), (False, set())])
def test_heads_that_are_not_stored_are_tied_to_the_embedding(tmp_path: Path, tied: bool, absent: set[str]) -> None:
    checkpoint = Checkpoint.open(llama(tmp_path, tie_word_embeddings=tied))
    assert absent <= checkpoint.absent_ties.keys()
    found = checkpoint.find("lm_head.weight")
    assert (found is not None) == tied
    assert found is None or found.name == "model.embed_tokens.weight"


def test_declared_ties_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint.open(llama(tmp_path, tie_word_embeddings=True))
    compute, calls = ties.tied_by_config, []

    def counting(*arguments: Any) -> dict[str, str]:
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(f"{Checkpoint.__module__}.tied_by_config", counting)
    tied = {name: checkpoint.tied_to(name) for name in checkpoint.tensors}
    assert tied["model.embed_tokens.weight"] == ("lm_head.weight",)
    assert len(calls) == 1


def test_thousands_of_digits_in_a_name_are_no_number(tmp_path: Path) -> None:
    names = [f"h.{digits}.mlp.weight" for digits in ("9" * 5000, "10", "2")]
    save_file({name: np.ones((4, 4), np.float32) for name in names}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 3}')
    with pytest.raises(InputError, match=r"there are 3 blocks, and there is no tensor of h\.0"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").unlink()
    assert list(Checkpoint.open(tmp_path).tensors) == [names[2], names[1], names[0]]


def test_an_index_with_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    index = {"weight_map": {"a": f"{'m' * 300}.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"mmm\.safetensors is missing, a file that model\.safetensors\.index\.json"):
        Checkpoint.open(tmp_path)
