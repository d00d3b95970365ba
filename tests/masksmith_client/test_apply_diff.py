import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_torch, save_file as save_torch, save_model

from masksmith_client import InputError, Masks
from masksmith_client.checkpoints import tensors
from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.cli.app import run
from masksmith_client.results import changes
from masksmith_client.results.apply import apply_masks, model_bytes
from masksmith_client.results.changes import compare
from masksmith_wire.masks import MaskInfo, file_header, pack

RNG = np.random.default_rng(0)
SHAPES = {"a": (33, 70), "conv": (5, 3, 3, 3), "row": (1, 9)}


def write_masks(path: Path, masks: dict[str, np.ndarray], *, as_bool: bool = False) -> Masks:
    infos = {name: MaskInfo(shape=list(mask.shape), pattern="2:4") for name, mask in masks.items()}
    data = [mask.tobytes() if as_bool else pack(mask).tobytes() for mask in masks.values()]
    path.write_bytes(file_header(infos, as_bool=as_bool) + b"".join(data))
    return Masks.open(path)


@pytest.fixture
def some() -> dict[str, np.ndarray]:
    return {name: RNG.random(shape) < 0.5 for name, shape in SHAPES.items()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tensors = {name: torch.from_numpy(RNG.standard_normal(shape)).float() for name, shape in SHAPES.items()}
    tensors |= {"bias": torch.ones(7), "steps": torch.tensor(3), "nothing": torch.ones(0, 4)}
    save_torch(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("output", ["out.safetensors", "out"])
def test_progress_ends_at_the_total(tmp_path: Path, model: Path, some: dict[str, np.ndarray], output: str) -> None:
    (tmp_path / "out").mkdir()
    reported: list[int] = []
    apply_masks(write_masks(tmp_path / "masks", some), model, tmp_path / output, reported.append)
    assert sum(reported) == model_bytes(model, tmp_path / output)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int8", "float8_e4m3fn", "int64"])
@pytest.mark.parametrize("as_bool", [False, True])
def test_weights_get_zeros_and_keep_every_other_bit(
    tmp_path: Path, some: dict[str, np.ndarray], dtype: str, as_bool: bool
) -> None:
    kind = getattr(torch, dtype)
    tensors = {name: torch.from_numpy(RNG.uniform(-60, 60, shape)).to(kind) for name, shape in SHAPES.items()}
    save_torch(tensors, tmp_path / "model")
    masks = write_masks(tmp_path / "masks", some, as_bool=as_bool)
    applied = apply_masks(masks, tmp_path / "model", tmp_path / "out")
    found = load_torch(tmp_path / "out")
    for name, tensor in tensors.items():
        assert found[name].dtype == kind
        wanted = torch.where(torch.from_numpy(some[name]), tensor.double(), 0.0)
        assert torch.equal(found[name].double(), wanted)
    assert {tensor.name: tensor.kept for tensor in applied} == {name: mask.sum() for name, mask in some.items()}


@pytest.mark.parametrize("piece", [13, 64, 1000])
def test_pieces_may_be_cut_anywhere(
    tmp_path: Path, model: Path, some: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(tensors, "PIECE_BYTES", piece)
    apply_masks(write_masks(tmp_path / "masks", some), model, tmp_path / "out")
    before, after = load_torch(model), load_torch(tmp_path / "out")
    for name, mask in some.items():
        assert np.array_equal(after[name].numpy(), np.where(mask, before[name].numpy(), 0))


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_the_mask_of_a_tensor_without_entries_keeps_nothing(tmp_path: Path, model: Path, option: list[str]) -> None:
    masks = write_masks(tmp_path / "masks", {"nothing": np.zeros((0, 4), np.bool_)})
    assert run(["apply", str(masks.path), str(model), "-o", str(tmp_path / "out.safetensors"), *option]) == 0
    assert [tensor.density for tensor in apply_masks(masks, model, tmp_path / "out") if tensor.kept is not None] == [0]


def test_nan_and_infinity_become_zero_too(tmp_path: Path) -> None:
    save_file({"a": np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)}, tmp_path / "model")
    masks = write_masks(tmp_path / "masks", {"a": np.zeros((1, 4), np.bool_)})
    apply_masks(masks, tmp_path / "model", tmp_path / "out")
    assert not load_torch(tmp_path / "out")["a"].view(torch.int32).any()


def test_other_tensors_and_the_metadata_are_copied(tmp_path: Path, model: Path, some: dict[str, np.ndarray]) -> None:
    masks = write_masks(tmp_path / "masks", {"a": some["a"]})
    applied = apply_masks(masks, model, tmp_path / "out")
    before, after = load_torch(model), load_torch(tmp_path / "out")
    assert list(after) == list(before)
    assert all(torch.equal(before[name], after[name]) for name in before if name != "a")
    assert {tensor.name for tensor in applied if tensor.kept is None} == set(before) - {"a"}
    with safe_open(tmp_path / "out", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_model_may_be_replaced_by_itself(tmp_path: Path, model: Path, some: dict[str, np.ndarray]) -> None:
    before = load_torch(model)
    apply_masks(write_masks(tmp_path / "masks", some), model, model)
    assert np.array_equal(load_torch(model)["a"].numpy(), np.where(some["a"], before["a"].numpy(), 0))


def test_a_sharded_checkpoint_becomes_one_file(tmp_path: Path, some: dict[str, np.ndarray]) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    weights = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    for name, weight in weights.items():
        save_file({name: weight}, folder / f"{name}.safetensors", {"format": "pt"})
    index = {"weight_map": {name: f"{name}.safetensors" for name in weights}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    apply_masks(write_masks(tmp_path / "masks", some), folder, tmp_path / "out.safetensors")
    found = load_torch(tmp_path / "out.safetensors")
    assert all(np.array_equal(found[name].numpy(), weights[name] * some[name]) for name in weights)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_one_file_has_the_tensors_that_the_index_forgets(
    tmp_path: Path, model: Path, some: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    index, output = tmp_path / "model.safetensors.index.json", tmp_path / "out.safetensors"
    index.write_text(json.dumps({"weight_map": {"a": model.name, "row": model.name}}))
    masks = write_masks(tmp_path / "masks", some)
    before = load_torch(model)
    assert run(["apply", str(tmp_path / "masks"), str(index), "-o", str(output)]) == 0
    assert "contains 'conv', which the index does not list" in capsys.readouterr().err
    after = load_torch(output)
    assert set(after) == set(before)
    assert np.array_equal(after["conv"].numpy(), before["conv"].numpy() * masks["conv"])
    assert run(["apply", str(tmp_path / "masks"), str(index), "-o", str(output), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["notes"]) == 4


@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json", "1.safetensors", "link"])
def test_a_file_of_a_sharded_model_is_not_replaced(
    tmp_path: Path, some: dict[str, np.ndarray], capsys: Any, file: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number, (name, shape) in enumerate(SHAPES.items()):
        save_file({name: np.ones(shape, np.float32)}, folder / f"{number}.safetensors")
    files = {name: f"{number}.safetensors" for number, name in enumerate(SHAPES)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "config.json").write_text('{"model_type": "none"}')
    (tmp_path / "link").symlink_to(folder / "0.safetensors")
    write_masks(tmp_path / "masks", some)
    output = tmp_path / "link" if file == "link" else folder / file
    before = output.read_bytes()
    for model in (folder, folder / "model.safetensors.index.json"):
        assert run(["apply", str(tmp_path / "masks"), str(model), "-o", str(output)]) == 2
        assert f"{output} is one of the files of {model}; name another file" in capsys.readouterr().err
        assert output.read_bytes() == before


@pytest.mark.parametrize("opened", ["file", "folder"])
def test_the_only_weights_of_a_folder_may_be_replaced(model: Path, some: dict[str, np.ndarray], opened: str) -> None:
    masks = write_masks(model.parent / "masks", some)
    (model.parent / "config.json").write_text('{"model_type": "none"}')
    apply_masks(masks, model if opened == "file" else model.parent, model)
    assert not load_torch(model)["a"][torch.from_numpy(~some["a"])].any()
    with pytest.raises(InputError, match="is one of the files of"):
        apply_masks(masks, model, model.parent / "config.json")


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".BIN", ".gguf", ".h5", ".npy"])
def test_a_name_of_another_format_is_refused_before_any_work(
    tmp_path: Path, model: Path, some: dict[str, np.ndarray], capsys: Any, suffix: str
) -> None:
    masks, output = write_masks(tmp_path / "some", some), tmp_path / f"out{suffix}"
    expected = f"{output} has the suffix of another format.*name it {tmp_path / 'out.safetensors'}"
    for command in (
        ["solve", str(model), "-p", "2:4", "--local", "-o", str(output)],
        ["solve", str(model.parent), "-p", "2:4", "--local", "-o", str(tmp_path / "m"), "--weights-out", str(output)],
        ["apply", str(tmp_path / "some"), str(model), "-o", str(output)],
        ["jobs", "masks", "0" * 32, "-o", str(output)],
        ["jobs", "weights", "0" * 32, "-o", str(output)],
    ):
        assert run(command) == 2
        assert re.search(expected, capsys.readouterr().err.replace("\n", " "))
    for write in (lambda: masks.save(output), lambda: apply_masks(masks, model, output)):
        with pytest.raises(InputError, match=expected):
            write()
    assert not output.exists()


def test_memory_is_bounded_by_a_piece(tmp_path: Path) -> None:
    save_file({"a": np.ones((4000, 4000), np.float32)}, tmp_path / "model")
    mask = np.zeros((4000, 4000), np.bool_)
    mask[::2] = True
    masks = write_masks(tmp_path / "masks", {"a": mask})
    tracemalloc.start()
    apply_masks(masks, tmp_path / "model", tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert np.array_equal(load_torch(tmp_path / "out")["a"].numpy(), mask.astype(np.float32))


BAD = {
    "a mask without a tensor": ({"b": (4, 4)}, r"mask 'b' has no tensor in .*model"),
    "a mask of another shape": ({"a": (4, 5)}, r"mask 'a' has shape \[4, 5\], the tensor has \[4, 4\]"),
}


@pytest.mark.parametrize("what", BAD)
def test_masks_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path, what: str, capsys: Any) -> None:
    shapes, message = BAD[what]
    save_file({"a": np.ones((4, 4), np.float32)}, tmp_path / "model")
    write_masks(tmp_path / "masks", {name: np.ones(shape, np.bool_) for name, shape in shapes.items()})
    with pytest.raises(InputError, match=message):
        apply_masks(Masks.open(tmp_path / "masks"), tmp_path / "model", tmp_path / "out")
    assert run(["apply", str(tmp_path / "masks"), str(tmp_path / "model"), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"model", "masks"}


def test_dtypes_without_a_zero_are_refused(tmp_path: Path) -> None:
    save_torch({"a": torch.ones(4, 4).to(torch.float8_e8m0fnu)}, tmp_path / "model")
    masks = write_masks(tmp_path / "masks", {"a": np.ones((4, 4), np.bool_)})
    with pytest.raises(InputError, match="'a' has dtype F8_E8M0, whose entries cannot be set to zero"):
        apply_masks(masks, tmp_path / "model", tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path, model: Path, some: dict[str, np.ndarray]) -> None:
    def fail(count: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        apply_masks(write_masks(tmp_path / "masks", some), model, tmp_path / "out", fail)
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "masks"}


def test_the_command_applies_and_reports(tmp_path: Path, model: Path, some: dict[str, np.ndarray], capsys: Any) -> None:
    write_masks(tmp_path / "masks", some)
    words = ["apply", str(tmp_path / "masks"), str(model), "-o", str(tmp_path / "out")]
    assert run(words) == 0
    assert "3 of 6 tensor(s) masked" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {tensor["name"]: tensor["kept"] for tensor in document["tensors"]} == {n: m.sum() for n, m in some.items()}
    assert sorted(document["copied"]) == ["bias", "nothing", "steps"]


@pytest.mark.parametrize("strip", [1, 100, 2**20])
def test_changes_are_counted_whatever_the_format(
    tmp_path: Path, some: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch, strip: int
) -> None:
    monkeypatch.setattr(changes, "STRIP_ENTRIES", strip)
    later = {name: mask ^ (RNG.random(mask.shape) < 0.1) for name, mask in some.items()}
    found = compare(write_masks(tmp_path / "a", some), write_masks(tmp_path / "b", later, as_bool=True))
    for change in found:
        old, new = some[change.name], later[change.name]
        assert change.sad == np.abs(old.astype(int) - new.astype(int)).sum()
        assert (change.kept_before, change.kept_after) == (old.sum(), new.sum())
        assert (change.added, change.dropped) == ((new > old).sum(), (old > new).sum())
        assert change.flip_rate == change.sad / old.size
    assert [change.sad for change in compare(Masks.open(tmp_path / "a"), Masks.open(tmp_path / "a"))] == [0, 0, 0]


def test_the_command_compares_what_both_files_hold(tmp_path: Path, some: dict[str, np.ndarray], capsys: Any) -> None:
    write_masks(tmp_path / "a", some)
    write_masks(tmp_path / "b", {"a": ~some["a"], "conv": some["conv"], "new": some["row"]})
    words = ["diff", str(tmp_path / "a"), str(tmp_path / "b")]
    assert run(words) == 0
    captured = capsys.readouterr()
    assert "2,310 of 2,445 entries differ, flip rate 94.48%" in captured.out
    assert f"only in {tmp_path / 'a'}: row" in captured.err
    assert run([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["total"] == {"sad": 2310, "entries": 2445, "flip_rate": 2310 / 2445}
    assert (document["only_in_a"], document["only_in_b"]) == (["row"], ["new"])
    assert document["tensors"][0]["flip_rate"] == 1.0


def test_files_that_do_not_compare_are_bad_input(tmp_path: Path, some: dict[str, np.ndarray], capsys: Any) -> None:
    write_masks(tmp_path / "a", {"a": some["a"]})
    write_masks(tmp_path / "other", {"b": some["a"]})
    write_masks(tmp_path / "turned", {"a": some["a"].T})
    assert run(["diff", str(tmp_path / "a"), str(tmp_path / "other")]) == 2
    assert "no tensor name in common" in capsys.readouterr().err
    assert run(["diff", str(tmp_path / "a"), str(tmp_path / "turned")]) == 2
    assert "'a' has shape [33, 70] in one file, [70, 33] in the other" in capsys.readouterr().err


@pytest.fixture
def tied(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A checkpoint that stores one of two tied weights, as `save_pretrained` writes them."""
    embedding = torch.from_numpy(RNG.standard_normal((32, 16))).float()
    save_torch({"model.embed_tokens.weight": embedding}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": True}))
    return tmp_path / "model.safetensors", embedding


@pytest.mark.parametrize("names", [["lm_head.weight"], ["model.embed_tokens.weight", "lm_head.weight"]])
def test_masks_of_tied_weights_apply_to_the_one_that_is_stored(
    tmp_path: Path, tied: tuple[Path, torch.Tensor], names: list[str]
) -> None:
    path, embedding = tied
    mask = RNG.random((32, 16)) < 0.5
    apply_masks(write_masks(tmp_path / "masks", dict.fromkeys(names, mask)), path, tmp_path / "out")
    (after,) = load_torch(tmp_path / "out").values()
    assert torch.equal(after, torch.where(torch.from_numpy(mask), embedding, 0.0))


def test_masks_of_shared_layers_apply_to_what_save_model_writes(tmp_path: Path) -> None:
    """It stores the name that comes first in the alphabet; the module lists `z` first, as its masks do."""
    model = torch.nn.ModuleDict({name: torch.nn.Linear(16, 16, bias=False) for name in "zam"})
    model["a"].weight = model["z"].weight
    save_model(model, str(tmp_path / "model.safetensors"))
    weight, mask = model["z"].weight.detach(), RNG.random((16, 16)) < 0.5
    masks = write_masks(tmp_path / "masks", dict.fromkeys(("z.weight", "a.weight"), mask))
    apply_masks(masks, tmp_path / "model.safetensors", tmp_path / "out.safetensors")
    after = load_torch(tmp_path / "out.safetensors")
    assert torch.equal(after["a.weight"], torch.where(torch.from_numpy(mask), weight, 0.0))
    assert torch.equal(after["m.weight"], model["m"].weight)
    assert Checkpoint.open(tmp_path / "out.safetensors").tied_to("a.weight") == ("z.weight",)


def test_masks_of_tied_weights_that_differ_are_refused(tmp_path: Path, tied: tuple[Path, torch.Tensor]) -> None:
    mask = RNG.random((32, 16)) < 0.5
    masks = write_masks(tmp_path / "masks", {"model.embed_tokens.weight": mask, "lm_head.weight": ~mask})
    with pytest.raises(InputError, match=r"differ.*tied"):
        apply_masks(masks, tied[0], tmp_path / "out")


@pytest.fixture
def stored_twice(tmp_path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model in `tmp_path` that stores both of two tied weights."""
    embedding = torch.from_numpy(RNG.standard_normal((32, 16))).float()
    stored = {"model.embed_tokens.weight": embedding, "lm_head.weight": embedding.clone()}
    save_torch(stored, tmp_path / "model.safetensors")
    return stored


@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("output", ["out.safetensors", "out"])
def test_a_mask_of_a_tied_weight_applies_to_its_stored_copies(
    tmp_path: Path, stored_twice: dict[str, torch.Tensor], name: str, output: str
) -> None:
    mask = RNG.random((32, 16)) < 0.5
    model = tmp_path if output == "out" else tmp_path / "model.safetensors"
    applied = apply_masks(write_masks(tmp_path / ".masks", {name: mask}), model, tmp_path / output)
    assert [tensor.kept for tensor in applied] == [int(mask.sum())] * 2
    path = tmp_path / output
    after = load_torch(path / "model.safetensors" if output == "out" else path)
    assert set(after) == set(stored_twice)
    for stored, value in stored_twice.items():
        assert torch.equal(after[stored], torch.where(torch.from_numpy(mask), value, 0.0))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"q.weight_scale": torch.ones(8, 1), "q.weight_zero_point": torch.full((8, 1), 7)}, "has a zero point"),
        ({"q.weight.absmax": torch.ones(8), "q.weight.quant_map": torch.ones(16)}, "is quantised"),
    ],
)
def test_weights_whose_zeros_are_not_stored_as_zeros_are_refused(
    tmp_path: Path, stored: dict[str, torch.Tensor], message: str
) -> None:
    dtype = torch.int8 if "zero" in message else torch.uint8
    save_torch({"q.weight": torch.ones(8, 8, dtype=dtype), **stored}, tmp_path / "model")
    masks = write_masks(tmp_path / "masks", {"q.weight": np.eye(8, dtype=bool)})
    with pytest.raises(InputError, match=message):
        apply_masks(masks, tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
