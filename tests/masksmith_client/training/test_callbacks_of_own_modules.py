"""Trainers of modules that are no models of `transformers`, and of models with masks of two sparsifiers."""

import pytest
import torch
from support.training_loop import WAITING, batch, perceptron

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import Fixed, Sparsifier

PATTERN = "transposable 2:4"
# Both libraries warn of their own affairs when they are imported and when they train.
pytestmark = pytest.mark.filterwarnings("ignore")


class Regression(torch.nn.Module):
    """A module that is no model of `transformers`; the Trainer writes its state dict."""

    def __init__(self):
        super().__init__()
        self.net = perceptron()

    def forward(self, inputs, labels):
        outputs = self.net(inputs)
        return {"loss": torch.nn.functional.mse_loss(outputs, labels), "logits": outputs}


@pytest.mark.parametrize("in_place", [False, True])
def test_a_trainer_of_a_model_with_masks_of_two_sparsifiers_is_refused(tmp_path, in_place):
    from masksmith_client.training import hugging_face, lightning as of_lightning

    model, method = Regression(), Fixed() if in_place else None
    one, other = (
        Sparsifier(model, PATTERN, ms.solve, None, method, layers=[name], in_place=in_place)
        for name in ("net.2", "net.4")
    )
    callbacks = of_lightning.SparsifierCallback(one), hugging_face.SparsifierCallback(one)
    message = "'net.4.weight' has the mask of another Sparsifier.*bake the masks of the other one"
    with pytest.raises(InputError, match=message):
        callbacks[0].on_fit_start(None, model)
    with pytest.raises(InputError, match=message):
        train_own_module(tmp_path, model, callbacks[1])
    other.bake()
    callbacks[0].on_fit_start(None, model)
    train_own_module(tmp_path, model, callbacks[1])
    assert ms.verify(model.net[2].weight != 0, PATTERN)


def train_own_module(folder, model=None, callback=None):
    from transformers import Trainer, TrainingArguments

    from masksmith_client.training.hugging_face import SparsifierCallback

    model = model or Regression()
    callback = callback or SparsifierCallback(Sparsifier(model, PATTERN, ms.solve, WAITING))
    arguments = TrainingArguments(
        str(folder), max_steps=2, save_steps=2, report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no"
    )
    examples = [dict(zip(("inputs", "labels"), pair, strict=True)) for pair in zip(*batch(count=16), strict=True)]
    Trainer(model, arguments, train_dataset=examples, callbacks=[callback]).train()
    return model


def test_checkpoints_of_a_users_own_module_are_sparse(tmp_path):
    from safetensors.torch import load_file

    model = train_own_module(tmp_path)
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert sorted(saved) == sorted(model.state_dict())
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    assert ms.verify(saved["net.2.weight"] != 0, PATTERN)


def test_masked_weights_that_cannot_be_written_leave_the_trainers_file(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    def fill_disk(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("masksmith_client.training.hugging_face.save_file", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        train_own_module(tmp_path)
    names = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert names >= {"model.safetensors", "sparsifier.safetensors"}
    assert not [name for name in names if name.startswith(".") or name.endswith(".part")]
    assert load_file(tmp_path / "checkpoint-2" / "model.safetensors")
