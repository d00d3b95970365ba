"""Checkpoints: a run that was interrupted ends as if it had not been."""

import copy
import io
import os

import pytest
import torch
from safetensors.torch import save_file
from support.training_loop import WAITING, perceptron, train

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import SRSTE, Refresh, Sparsifier, StraightThrough, state as state_module
from masksmith_client.training.state import KEY, read_state

PATTERN = "transposable 2:4"


def begin(seed=0, pattern=PATTERN, method=None, **options):
    model = perceptron(seed=seed)
    sparsifier = Sparsifier(model, pattern, ms.solve, WAITING, method or SRSTE(), **options)
    return model, torch.optim.Adam(model.parameters(), 5e-3), sparsifier


def through_a_file(state):
    """As `torch.save` writes it, and as it is read without unpickling."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been():
    model, optimizer, sparsifier = begin()
    train(model, optimizer, sparsifier, 7)
    saved = through_a_file([thing.state_dict() for thing in (model, optimizer, sparsifier)])
    train(model, optimizer, sparsifier, 9)

    again = begin(seed=1)
    for thing, state in zip(again, saved, strict=True):
        thing.load_state_dict(state)
    assert again[2].report().step == 7
    train(*again, 9)
    assert sparsifier.report().layers == again[2].report().layers
    assert [r.sad for r in sparsifier.report().refreshes] == [r.sad for r in again[2].report().refreshes]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again[0].state_dict()[name]), name


def test_a_run_that_was_interrupted_in_a_warm_up_gets_its_first_masks_at_the_same_step():
    options = {"schedule": "dense-phases warm_up=6"}
    _, _, sparsifier = begin(**options)
    for _ in range(5):
        sparsifier.step()
    _, _, again = begin(**options)
    again.load_state_dict(through_a_file(sparsifier.state_dict()))
    for each in (sparsifier, again):
        each.step()
        assert [record.asked_at for record in each.report().refreshes] == [6]


def test_late_refreshes_are_counted_on_after_a_resume():
    model, optimizer, sparsifier = begin()
    sparsifier._refresher.late = 3
    train(model, optimizer, sparsifier, 5)
    again = begin(seed=1)
    again[2].load_state_dict(through_a_file(sparsifier.state_dict()))
    assert again[2].report().late == 3
    train(*again, 4)
    assert [record.late for record in again[2].report().refreshes] == [0, 3, 3]


def test_masks_are_kept_as_bits_in_safetensors(tmp_path):
    model, optimizer, sparsifier = begin()
    train(model, optimizer, sparsifier, 5)
    sparsifier.save(tmp_path / "masks.safetensors")
    _, _, other = begin(seed=1)
    other.load(tmp_path / "masks.safetensors")
    assert all(torch.equal(mask, sparsifier.masks[name]) for name, mask in other.masks.items())
    assert other.report().refreshes == sparsifier.report().refreshes
    assert sum(mask["bits"].numel() for mask in sparsifier.state_dict()["masks"].values()) == 2 * 32 * 32 // 8


def test_a_state_may_have_a_name_of_any_length_that_a_file_may_have(tmp_path):
    _, _, sparsifier = begin()
    sparsifier.save(tmp_path / ("m" * 255))
    assert [path.name for path in tmp_path.iterdir()] == ["m" * 255]


def test_an_answer_under_way_is_dropped():
    def begin_in_a_thread(seed):
        model = perceptron(seed=seed)
        refresh = Refresh(every=2, begin=2, until=3)
        sparsifier = Sparsifier(model, PATTERN, lambda *given: ms.solve(*given), refresh, StraightThrough())
        train(model, torch.optim.SGD(model.parameters(), 0.1), sparsifier, 2)
        assert sparsifier._refresher.pending.step == 2
        return sparsifier

    def settle(sparsifier):
        while sparsifier._refresher.pending is not None:
            sparsifier.step()
        return sparsifier.masks, sparsifier.report().refreshes

    first, second = begin_in_a_thread(seed=0), begin_in_a_thread(seed=1)
    masks, records = settle(first)
    assert len(records) == 2
    second.load_state_dict(first.state_dict())
    found, known = settle(second)
    assert known == records
    assert all(torch.equal(mask, masks[name]) for name, mask in found.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pattern": "transposable 4:8"}, "the checkpoint's pattern is 'transposable 2:4', this .* 'transposable 4:8'"),
        ({"method": StraightThrough()}, "the checkpoint's method is 'SRSTE', this sparsifier's is 'StraightThrough'"),
        ({"layers": "2"}, "this sparsifier does not mask '4.weight'"),
        ({"layers": ["2", "4", "0"]}, "the checkpoint has no mask of '0.weight'"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(changed, message):
    _, _, sparsifier = begin()
    _, _, other = begin(**changed)
    before = other.masks
    with pytest.raises(InputError, match=message):
        other.load_state_dict(sparsifier.state_dict())
    assert all(torch.equal(mask, before[name]) for name, mask in other.masks.items())


def test_a_checkpoint_of_other_shapes_is_refused():
    _, _, sparsifier = begin()
    model = perceptron(width=16)
    other = Sparsifier(model, PATTERN, ms.solve, WAITING)
    with pytest.raises(InputError, match=r"'2.weight' has shape \[32, 32\] in the checkpoint, \[16, 16\] in the model"):
        other.load_state_dict(sparsifier.state_dict())


def test_a_file_that_is_something_else_is_refused(tmp_path):
    _, _, sparsifier = begin()
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"notes.txt is not a sparsifier state"):
        sparsifier.load(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="format is None"):
        sparsifier.load_state_dict({})


def test_what_a_file_really_is_is_said(tmp_path):
    _, _, sparsifier = begin()
    (tmp_path / "state").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 1\n")
    with pytest.raises(InputError, match=r"state is not a sparsifier state: .*a Git LFS pointer"):
        sparsifier.load(tmp_path / "state")


def test_a_state_that_cannot_be_written_leaves_the_previous_one(tmp_path, monkeypatch):
    def fill_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    _, _, sparsifier = begin()
    sparsifier.save(tmp_path / "state")
    before = (tmp_path / "state").read_bytes()
    monkeypatch.setattr("masksmith_client.training.state.save_file", fill_disk)
    with pytest.raises(InputError, match=r"cannot be written to .*state: No space left"):
        sparsifier.save(tmp_path / "state")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert (tmp_path / "state").read_bytes() == before


def put(value, *keys):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def drop(*keys):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


def cut_bits(state):
    state["masks"]["4.weight"]["bits"] = state["masks"]["4.weight"]["bits"][:-1]


def cut_values(state):
    state["pruned"]["4.weight"]["values"] = state["pruned"]["4.weight"]["values"][:-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("masks"), "the checkpoint has no 'masks'"),
        (drop("step"), "the checkpoint has no 'step'"),
        (put("x", "step"), "the checkpoint's step is 'x'"),
        (put(-1, "step"), "the checkpoint's step is -1"),
        (put(torch.ones(32, 32), "masks", "4.weight"), "mask of '4.weight' is a Tensor: pass what state_dict"),
        (drop("masks", "4.weight", "bits"), "mask of '4.weight' has no 'bits'"),
        (cut_bits, r"mask of '4.weight': its bits have shape \[31, 4\], not \[32, 4\]"),
        (drop("pruned", "4.weight", "kept"), "pruned values of '4.weight' has no 'kept'"),
        (cut_values, "pruned values of '4.weight' do not fit"),
        (lambda state: state["layers"].pop(), "the checkpoint's layers are not those of its masks"),
    ],
)
def test_a_damaged_state_is_refused_as_a_whole(damage, message):
    model, optimizer, sparsifier = begin()
    state = sparsifier.state_dict(pruned=True)
    damage(state)
    train(model, optimizer, sparsifier, 8)
    masks, weights = sparsifier.masks, {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=message):
        sparsifier.load_state_dict(state)
    assert all(torch.equal(mask, masks[name]) for name, mask in sparsifier.masks.items())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="int is not a sparsifier state"):
        sparsifier.load_state_dict(3)


def paths_of(state, path=()):
    for key, value in state.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from paths_of(value, (*path, key))


UNWRITABLE = {
    "missing": "missing/state",
    "folder": ".",
    "empty": "",
    "root": "/",
    "in a file": "file/state",
    "null": "a\0b",
}


@pytest.mark.parametrize("case", UNWRITABLE)
def test_a_path_that_cannot_be_written_is_named(tmp_path, monkeypatch, case):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work" / "file").touch()
    _, _, sparsifier = begin()
    with pytest.raises(InputError, match="the sparsifier's state cannot be written to "):
        sparsifier.save(UNWRITABLE[case])
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "file"]


def test_processes_with_the_same_id_may_write_the_same_file_at_the_same_time(tmp_path, monkeypatch):
    """Ranks in containers have the same process id, and share a file system."""
    _, _, sparsifier = begin()
    masks = sparsifier.masks
    save_file = state_module.save_file

    def save_twice(*arguments):
        monkeypatch.setattr(state_module, "save_file", save_file)
        save_file(*arguments)
        sparsifier.save(tmp_path / "state")

    monkeypatch.setattr(state_module, "save_file", save_twice)
    sparsifier.save(tmp_path / "state")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    sparsifier.load(tmp_path / "state")
    assert all(torch.equal(mask, masks[name]) for name, mask in sparsifier.masks.items())


def test_a_state_is_on_the_disk_before_it_replaces_the_file_that_a_link_points_to(tmp_path, monkeypatch):
    events = []

    def recorded(name):
        function = getattr(os, name)
        return lambda *arguments: (events.append(name), function(*arguments))

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, recorded(name))
    (tmp_path / "link").symlink_to("state")
    _, _, sparsifier = begin()
    sparsifier.save(tmp_path / "link")
    assert events[:2] == ["fsync", "replace"]
    assert (tmp_path / "link").is_symlink()
    sparsifier.load(tmp_path / "state")


def test_a_plain_state_dict_that_overwrites_restored_values_is_refused_at_the_next_step():
    model, _, saved = begin()
    dense = model[2].parametrizations.weight.original.detach().clone()
    plain, state = saved.plain_state_dict(), saved.state_dict(pruned=True)
    again, optimizer, sparsifier = begin(seed=1)
    sparsifier.load_state_dict(state)
    again.load_state_dict(plain)
    with pytest.raises(InputError, match=r"of '2\.weight' were overwritten .* load the model's state dict first"):
        sparsifier.step()
    sparsifier.load_state_dict(state)
    assert torch.equal(again[2].parametrizations.weight.original, dense)
    train(again, optimizer, sparsifier, 1)
    again.load_state_dict(plain)
    sparsifier.step()


def test_a_state_is_compared_with_the_weights_that_it_was_saved_with(tmp_path):
    model, _, saved = begin()
    saved.save(tmp_path / "state", pruned=True)
    plain, dense = saved.plain_state_dict(), copy.deepcopy(model.state_dict())
    for weights in (plain, dense):
        model, _, sparsifier = begin(seed=1)
        with pytest.raises(InputError, match=r"state is not of the checkpoint whose weights were loaded: '2\.weight'"):
            sparsifier.load(tmp_path / "state", check_weights=True)
        model.load_state_dict(weights)
        sparsifier.load(tmp_path / "state", check_weights=True)
        assert torch.equal(model[2].parametrizations.weight.original, dense["2.weight"])


@pytest.mark.parametrize("wrong", [None, "text", [None], {"a": 1}, torch.zeros(2), float("nan")], ids=type)
def test_a_member_of_another_type_is_refused_before_anything_changes(wrong):
    _, _, saved = begin()
    state = saved.state_dict(pruned=True)
    for path in paths_of(state):
        *parents, last = path
        damaged = copy.deepcopy(state)
        parent = damaged
        for key in parents:
            parent = parent[key]
        parent[last] = wrong
        model, optimizer, sparsifier = begin()
        train(model, optimizer, sparsifier, 4)
        before = sparsifier.state_dict(pruned=True)
        with pytest.raises(InputError):
            sparsifier.load_state_dict(damaged)
        assert str(sparsifier.state_dict(pruned=True)) == str(before), path


@pytest.mark.parametrize(
    "text", ["[]", '{"masks": 3}', '{"masks": {"a": 3}}', '"x"', "{", pytest.param("[" * 100_000, id="deep")]
)
def test_a_file_with_other_json_is_refused(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "state.safetensors", {KEY: text})
    with pytest.raises(InputError, match=r"state\.safetensors is not a sparsifier state: "):
        read_state(tmp_path / "state.safetensors")


def test_a_file_whose_json_has_pruned_values_is_read_by_its_tensors(tmp_path):
    tensors = {"a": torch.zeros(1), "a/pruned/values": torch.ones(2)}
    save_file(tensors, tmp_path / "state.safetensors", {KEY: '{"masks": {"a": {}}, "pruned": 3}'})
    assert list(read_state(tmp_path / "state.safetensors")["pruned"]["a"]) == ["values"]


def test_nothing_goes_on_after_baking():
    _, _, sparsifier = begin()
    sparsifier.bake()
    for act in (sparsifier.step, sparsifier.bake, sparsifier.refresh_now):
        with pytest.raises(InputError, match="baked into the weights"):
            act()
    assert len(sparsifier.report().layers) == 2


def test_a_state_in_memory_does_not_change_with_later_masks():
    model, optimizer, sparsifier = begin()
    train(model, optimizer, sparsifier, 5)
    state, masks = sparsifier.state_dict(pruned=True), sparsifier.masks
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    train(model, torch.optim.SGD(model.parameters(), 0.5), sparsifier, 9)
    assert any(not torch.equal(mask, sparsifier.masks[name]) for name, mask in masks.items())
    assert all(torch.equal(part["kept"], masks[name]) for name, part in state["pruned"].items())
    sparsifier.load_state_dict(state)
    for name in masks:
        pruned = ~masks[name]
        assert torch.equal(model.state_dict()[name][pruned], weights[name][pruned])
