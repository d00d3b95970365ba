from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import masksmith as ms
from masksmith.calibration import Calibration

EVERYTHING = ("norms", "gram", "activations", "gradients")


def loss(model, batch):
    return model(batch).square().mean()


def test_norms_and_gram_are_those_of_all_inputs(model, batches):
    gathered = ms.calibrate(model, batches, gather=("norms", "gram"))
    first = torch.cat(batches).reshape(-1, 8).double().numpy()
    second = model[1](model[0](torch.cat(batches))).reshape(-1, 16).detach().double().numpy()
    for name, inputs in (("0.weight", first), ("3.weight", second)):
        assert gathered[name].samples == 60
        np.testing.assert_allclose(gathered[name].norms, np.linalg.norm(inputs, axis=0), rtol=1e-5)
        np.testing.assert_allclose(gathered[name].gram, inputs.T @ inputs, rtol=1e-4, atol=1e-4)
        assert gathered[name].gradient is None


def test_gradients_are_means_over_batches_and_leave_training_alone(model, batches):
    model[0].weight.requires_grad_(False)
    model.train()
    gathered = ms.calibrate(model, batches, gather=("gradients",), loss=loss)
    assert not model[0].weight.requires_grad
    assert model.training
    assert model[2].training
    assert model[3].weight.grad is None
    model.eval()
    each = []
    for batch in batches:
        model.zero_grad()
        loss(model, batch).backward()
        each.append(model[3].weight.grad.numpy().copy())
    np.testing.assert_allclose(gathered["3.weight"].gradient, np.mean(each, axis=0), rtol=1e-4, atol=1e-7)
    weight = model[3].weight.detach().numpy()
    scores = gathered.score("taylor", "3.weight", weight)
    np.testing.assert_allclose(scores, np.mean([ms.taylor(weight, g) for g in each], axis=0), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-24, 1e25])
def test_gradients_whose_squares_are_no_floats_have_a_root_mean_square(model, batches, scale):
    def loss(model, batch):
        return model(batch).square().mean() * scale

    plain = ms.calibrate(model, batches, gather=("gradients",), loss=lambda model, batch: loss(model, batch) / scale)
    scaled = ms.calibrate(model, batches, gather=("gradients",), loss=loss)
    expected = plain["3.weight"].gradient_rms.astype(float) * scale
    assert expected.any()
    np.testing.assert_allclose(scaled["3.weight"].gradient_rms, expected, rtol=1e-4)


def test_activations_are_a_choice_of_the_inputs(model, batches):
    gathered = ms.calibrate(model, batches, gather=("activations",), max_samples=10)["0.weight"].activations
    rows = {tuple(row) for row in torch.cat(batches).reshape(-1, 8).numpy().tolist()}
    assert len({tuple(row) for row in gathered.tolist()}) == 10
    assert {tuple(row) for row in gathered.tolist()} <= rows
    again = ms.calibrate(model, batches, gather=("activations",), max_samples=10)["0.weight"].activations
    np.testing.assert_array_equal(gathered, again)


CONVOLUTIONS = {
    "plain": lambda: torch.nn.Conv2d(3, 5, 3),
    "strided, padded, dilated": lambda: torch.nn.Conv2d(3, 5, (3, 2), stride=2, padding=2, dilation=2),
    "same": lambda: torch.nn.Conv2d(3, 5, (5, 3), padding="same"),
    "reflected": lambda: torch.nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"),
    "one-dimensional": lambda: torch.nn.Conv1d(3, 5, 4, stride=2, padding=1),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_patches_of_convolutions_multiply_to_their_outputs(kind):
    torch.manual_seed(0)
    layer = CONVOLUTIONS[kind]().double()
    inputs = torch.randn(2, 3, *([9, 7] if layer.weight.ndim == 4 else [9]))
    model = torch.nn.Sequential(layer.float())
    gathered = ms.calibrate(model, [inputs], gather=("norms", "activations"), max_samples=10**6)["0.weight"]
    outputs = layer(inputs).detach() - layer.bias.detach().reshape(-1, *([1] * (inputs.ndim - 2)))
    expected_rows = outputs.transpose(0, 1).reshape(5, -1).numpy()
    made = (gathered.activations @ layer.weight.detach().reshape(5, -1).numpy().T).T
    np.testing.assert_allclose(np.sort(made, axis=1), np.sort(expected_rows, axis=1), rtol=1e-3, atol=1e-5)
    assert ms.wanda(layer.weight, gathered.norms).shape == layer.weight.shape


def test_every_score_comes_from_a_calibration_that_went_through_a_file(model, batches, tmp_path):
    gathered = ms.calibrate(model, batches, gather=EVERYTHING, loss=loss)
    again = Calibration.load(gathered.save(tmp_path / "stats.safetensors"))
    assert list(again) == list(gathered)
    assert again["0.weight"].samples == 60
    weight = model[3].weight
    for kind in ("wanda", "ria", "sparsegpt", "taylor", "sipp", "pfp"):
        scores = gathered.score(kind, "3.weight", weight)
        assert torch.equal(scores, again.score(kind, "3.weight", weight))
        assert ms.solve(scores, "2:4").gap == 0.0
    assert set(load_file(tmp_path / "stats.safetensors")) >= {"0.weight/norms", "3.weight/gram"}


def test_shared_weights_gather_from_all_their_layers(batches):
    torch.manual_seed(0)
    one, other = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)
    other.weight = one.weight
    gathered = ms.calibrate(torch.nn.Sequential(one, other), batches)
    assert list(gathered) == ["0.weight"]
    assert gathered["0.weight"].samples == 120


@pytest.mark.parametrize("layers", [None, "1", "1.weight", "[1]"])
def test_a_layer_that_is_registered_twice_has_both_names(batches, layers, tmp_path):
    layer = torch.nn.Linear(8, 8)
    gathered = ms.calibrate(torch.nn.Sequential(layer, layer), batches, layers=layers)
    assert list(gathered) == ["0.weight"]
    assert gathered["0.weight"].samples == 120
    loaded = ms.Calibration.load(gathered.save(tmp_path / "stats.safetensors"))
    for calibration in (gathered, loaded):
        assert calibration.shared_names == {"1.weight": "0.weight"}
        scores = [calibration.score("wanda", name, layer.weight) for name in ("0.weight", "1.weight")]
        assert torch.equal(*scores)


def test_batches_may_be_arguments_or_keywords():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 2)

        def forward(self, x, y=0):
            return self.layer(x + y)

    x, y = torch.ones(3, 4), torch.full((3, 4), 2.0)
    for batch in ((x, y), [x, y], {"x": x, "y": y}):
        np.testing.assert_allclose(ms.calibrate(Sum(), [batch])["layer.weight"].norms, np.sqrt(27))


class Scaled(torch.nn.Linear):
    """A layer whose input has another name, and may follow other arguments."""

    def forward(self, hidden, scale=1.0):
        return super().forward(hidden) * scale


@pytest.mark.parametrize("scale", [2.0, torch.full((4,), 2.0)])
def test_the_input_of_a_layer_is_the_first_parameter_of_its_forward(scale):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Scaled(4, 4)

        def forward(self, x):
            return self.layer(scale=scale, hidden=x)

    np.testing.assert_allclose(ms.calibrate(Model(), [torch.ones(3, 4)])["layer.weight"].norms, np.sqrt(3))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.ones(2, 7), r"tensor '0.weight': the layer was called with shape \[2, 7\], its weight has \[16, 8\]"),
        ("text", "tensor '0.weight': the layer was called with str instead of a tensor"),
        (torch.tensor(1.0), r"tensor '0.weight': the layer was called with shape \[\]"),
    ],
)
def test_a_batch_that_a_layer_cannot_multiply_is_refused_by_name(model, batch, message):
    with pytest.raises(ms.ScoresError, match=message):
        ms.calibrate(model, [batch])
    assert not model[0]._forward_pre_hooks


def test_a_convolution_of_other_channels_is_refused_by_name():
    with pytest.raises(ms.ScoresError, match=r"'0.weight': the layer was called with shape \[1, 2, 5, 5\]"):
        ms.calibrate(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), [torch.ones(1, 2, 5, 5)])


def test_weights_without_values_and_complex_ones_are_refused_by_name(batches):
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(8, 8))
    with pytest.raises(ms.ScoresError, match=r"'0.weight': it is on the meta device, without values: load the weights"):
        ms.calibrate(model, batches)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8, dtype=torch.complex64))
    with pytest.raises(ms.ScoresError, match=r"'0.weight': dtype torch.complex64 is not calibrated"):
        ms.calibrate(model, batches)


@pytest.mark.parametrize("place", ["whole", "inside"])
def test_compiled_models_have_the_names_of_plain_ones(model, batches, place):
    if place == "inside":
        model[3] = torch.compile(model[3], backend="eager")
        wrapped, selector = model, "3._orig_mod"
    else:
        wrapped, selector = torch.compile(torch.nn.DataParallel(model), backend="eager"), "_orig_mod.module.3.weight"
    assert list(ms.calibrate(wrapped, batches)) == ["0.weight", "3.weight"]
    for layers in (selector, "3", "3.weight"):
        assert list(ms.calibrate(wrapped, batches, layers=layers)) == ["3.weight"]


def test_what_cannot_be_calibrated_is_skipped_with_its_reason(batches):
    model = torch.nn.Module()
    model.used, model.idle = torch.nn.Linear(8, 2), torch.nn.Linear(8, 2)
    model.grouped = torch.nn.Conv2d(4, 4, 1, groups=2)
    model.forward = lambda x: model.used(x)
    gathered = ms.calibrate(model, batches)
    assert list(gathered) == ["used.weight"]
    assert gathered.skipped == {
        "idle.weight": "it never ran",
        "grouped.weight": "its inputs differ from group to group",
    }
    with pytest.raises(ms.ScoresError, match=r"'idle\.weight': not calibrated: it never ran"):
        gathered.score("wanda", "idle.weight", model.idle.weight)


def test_layers_are_named_as_modules_or_weights(model, batches):
    for layers in ("0", "0.weight", ["0"], "[0]", ("0.*",)):
        gathered = ms.calibrate(model, batches, layers=layers)
        assert list(gathered) == ["0.weight"]
        assert gathered.skipped == {}


def test_a_layer_that_is_spelled_out_must_be_one_that_can_be_watched(batches):
    model = torch.nn.Module()
    model.used, model.grouped = torch.nn.Linear(8, 2), torch.nn.Conv2d(4, 4, 1, groups=2)
    model.forward = lambda x: model.used(x)
    for layers in ("grouped", ["used", "grouped.weight"]):
        with pytest.raises(ms.ScoresError, match=r"'grouped\.weight': its inputs differ from group to group"):
            ms.calibrate(model, batches, layers=layers)
    with pytest.raises(ms.ScoresError, match=r"none of 1 linear or convolution layer\(s\).*group to group"):
        ms.calibrate(model, batches, layers="group*")
    with pytest.raises(ms.ScoresError, match="there are no linear or convolution layers"):
        ms.calibrate(torch.nn.ReLU(), batches)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", ["parametrized", "by hook", "twice"])
def test_gradients_of_weights_that_are_computed(batches, kind, frozen):
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    if kind == "by hook":
        with pytest.warns(FutureWarning):
            layer = torch.nn.utils.weight_norm(layer)
    else:
        layer = torch.nn.utils.parametrizations.weight_norm(layer)
    model = torch.nn.Sequential(layer, torch.nn.ReLU(), *([layer] if kind == "twice" else []))
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen)
    plain = torch.nn.Linear(8, 8)
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
        plain.bias.copy_(layer.bias)
    expected = torch.zeros(8, 8)
    for batch in batches:
        output = plain(batch).relu()
        loss = (plain(output) if kind == "twice" else output).square().sum()
        expected += torch.autograd.grad(loss, plain.weight)[0] / len(batches)
    gathered = ms.calibrate(
        model, batches, gather=("gradients",), loss=lambda model, batch: model(batch).square().sum()
    )
    np.testing.assert_allclose(gathered["0.weight"].gradient, expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.requires_grad is not frozen for parameter in model.parameters())


def test_parametrized_weights_are_told_apart(batches):
    model = torch.nn.Sequential(*(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 8)) for _ in range(6)))
    gathered = ms.calibrate(model, batches)
    assert {name: layer.samples for name, layer in gathered.items()} == {f"{place}.weight": 60 for place in range(6)}


def test_hooks_and_modes_are_gone_after_a_failure(model, batches):
    model.train()
    with pytest.raises(ms.ScoresError, match="called with shape"):
        ms.calibrate(model, [*batches, torch.ones(2, 3)])
    assert not model[0]._forward_pre_hooks
    assert model.training
    assert model[2].training


def test_an_error_of_the_model_is_raised_as_it_is(model, batches):
    model.append(torch.nn.Module())
    model[4].forward = lambda output: output.squared
    with pytest.raises(AttributeError, match="squared"):
        ms.calibrate(model, batches, gather=("gradients",))


def without_loss(model):
    """Append a module that returns what `transformers` does for a batch without labels."""
    model.append(torch.nn.Module())
    model[4].forward = lambda output: SimpleNamespace(logits=output, loss=None)
    return model


def forward(model, batch):
    return model(batch)


def broken(model):
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    return model


BAD = {
    "nothing": (lambda m, b: ms.calibrate(m, b, gather=()), r"gather=\[\]"),
    "something unknown": (lambda m, b: ms.calibrate(m, b, gather=("hessian",)), "expected some of norms, gram"),
    "no such layer": (lambda m, b: ms.calibrate(m, b, layers=["9.*"]), "'9.*': fits no linear.*there are 0.weight"),
    "no batch": (lambda m, b: ms.calibrate(m, []), "there is no batch"),
    "no loss": (lambda m, b: ms.calibrate(m, b, gather=("gradients",)), "gradients need loss="),
    "no number": (lambda m, b: ms.calibrate(m, b, gather=("gradients",), loss=lambda *_: None), "loss is a NoneType"),
    "many numbers": (lambda m, b: ms.calibrate(m, b, gather=("gradients",), loss=forward), r"loss is of shape \[\d+,"),
    "no rows": (lambda m, b: ms.calibrate(m, b, gather=("activations",), max_samples=0), "max_samples=0 must be at"),
    "no labels": (lambda m, b: ms.calibrate(without_loss(m), b, gather=("gradients",)), "gradients need loss="),
    "a broken model": (lambda m, b: ms.calibrate(broken(m), b), "'3.weight': its norms hold NaN"),
    "another score": (lambda m, b: ms.calibrate(m, b).score("size", "0.weight", m[0].weight), "unknown score 'size'"),
    "another layer": (lambda m, b: ms.calibrate(m, b).score("ria", "7.weight", 0), "'7.weight': not calibrated: the"),
    "not gathered": (
        lambda m, b: ms.calibrate(m, b).score("sparsegpt", "0.weight", m[0].weight),
        r"'0.weight': sparsegpt needs 'gram', which was not gathered: .*gather=\['gram'\]",
    ),
    "no gradients": (
        lambda m, b: ms.calibrate(m, b).score("taylor", "0.weight", m[0].weight),
        r"taylor needs 'gradient_rms', which was not gathered: .*gather=\['gradients'\]",
    ),
    "another weight": (
        lambda m, b: ms.calibrate(m, b).score("wanda", "0.weight", m[3].weight), r"norms has shape \[8\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_gathered_or_scored_is_refused_by_name(what, model, batches):
    call, message = BAD[what]
    with pytest.raises(ms.ScoresError, match=message):
        call(model, batches)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"rubbish, nothing else", "it is text, which begins with 'rubbish, nothing else'"),
        (b"version: 2\nlayers: []\n", "it is text, which begins with 'version: 2'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*run 'git lfs pull'"),
        (None, "masksmith_calibration"),
    ],
)
def test_other_files_are_no_calibrations(tmp_path, content, reason):
    path = tmp_path / "file"
    if content is None:
        save_file({"w": np.ones(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ms.ScoresError, match=f"is not a calibration file: .*{reason}"):
        Calibration.load(path)


def test_metadata_that_is_nested_too_deeply_is_no_calibration(tmp_path):
    save_file({"w": np.ones(3)}, tmp_path / "file", {"masksmith_calibration": "[" * 100_000})
    with pytest.raises(ms.ScoresError, match="is not a calibration file"):
        Calibration.load(tmp_path / "file")


def test_progress_is_shown_on_request(model, batches, capsys):
    ms.calibrate(model, batches, progress=True)
    assert "calibrating" in capsys.readouterr().err
    ms.calibrate(model, batches)
    assert capsys.readouterr().err == ""


def test_a_file_stays_as_it_is_if_another_cannot_be_written_over_it(model, batches, tmp_path, monkeypatch):
    path = ms.calibrate(model, batches).save(tmp_path / "calibration.safetensors")
    content, others = path.read_bytes(), ms.calibrate(model, batches, gather=("norms", "gram"))

    def stopping(tensors, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("safetensors.numpy.save_file", stopping)
        with pytest.raises(OSError, match="No space left"):
            others.save(path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "link").symlink_to(path)
    others.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert ms.Calibration.load(path)["3.weight"].gram is not None
