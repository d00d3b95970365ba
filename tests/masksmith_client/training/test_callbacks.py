"""Lightning's trainer and Hugging Face's, run for real on tiny models."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.training_loop import WAITING, batch, perceptron

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import SRSTE, MaskedDecay, Sparsifier, TrainableThresholds

PATTERN = "transposable 2:4"
# Both libraries warn of their own affairs when they are imported and when they train.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def lightning():
    import lightning.pytorch

    return lightning.pytorch


def lightning_run(
    lightning, folder, steps, method=None, resume=None, seed=0, accumulate=1, weights_only=False, callbacks=(), on=None
):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = perceptron(seed=seed)

        def training_step(self, given, index):
            inputs, targets = given
            return torch.nn.functional.mse_loss(self.net(inputs), targets)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.2)

    from masksmith_client.training.lightning import SparsifierCallback

    module = Module()
    sparsifier = Sparsifier(on or module, PATTERN, ms.solve, WAITING, method or SRSTE())
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(count=56)), batch_size=8)
    saving = lightning.callbacks.ModelCheckpoint(
        folder, every_n_train_steps=7, save_top_k=-1, save_weights_only=weights_only
    )
    trainer = lightning.Trainer(
        max_steps=steps, callbacks=[SparsifierCallback(sparsifier), saving, *callbacks], default_root_dir=folder,
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
        accumulate_grad_batches=accumulate,
    )  # fmt: skip
    trainer.fit(module, data, ckpt_path=resume, weights_only=True if resume else None)
    return module, sparsifier, trainer


def test_lightning_trains_and_bakes(lightning, tmp_path):
    module, sparsifier, _ = lightning_run(lightning, tmp_path, steps=12, method=MaskedDecay())
    assert sparsifier.report().step == 12
    assert [record.asked_at for record in sparsifier.report().refreshes] == [0, 4, 8, 12]
    assert sorted(module.net.state_dict()) == sorted(perceptron().state_dict())
    assert ms.verify(module.net[2].weight != 0, PATTERN)


@pytest.mark.parametrize("of_lightning", [False, True])
def test_sr_ste_is_refused_where_the_trainers_optimizer_ascends_gradients(lightning, of_lightning):
    from masksmith_client.training import hugging_face, lightning as of_masksmith

    model = perceptron()
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, SRSTE())

    def start(**options):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **options)
        trainer = SimpleNamespace(global_step=0, optimizers=[optimizer])
        arguments = SimpleNamespace(push_to_hub=False)
        if of_lightning:
            of_masksmith.SparsifierCallback(sparsifier).on_train_start(trainer, model)
        else:
            callback = hugging_face.SparsifierCallback(sparsifier)
            callback.on_train_begin(arguments, trainer, None, model=model, optimizer=optimizer)

    start()
    with pytest.raises(InputError, match="SRSTE would make the pruned entries of"):
        start(maximize=True)


def test_lightning_counts_optimizer_steps_not_batches(lightning, tmp_path):
    _, sparsifier, _ = lightning_run(lightning, tmp_path, steps=5, accumulate=3)
    assert sparsifier.report().step == 5


def test_lightning_resumes(lightning, tmp_path):
    whole, _, _ = lightning_run(lightning, tmp_path, steps=14)
    [half] = tmp_path.glob("*step=7.ckpt")
    again, sparsifier, _ = lightning_run(lightning, tmp_path, steps=14, resume=half, seed=1)
    assert sparsifier.report().step == 14
    for name, weight in whole.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[name], weight)


@pytest.mark.parametrize("method", [SRSTE(), TrainableThresholds()])
def test_a_resumed_average_of_lightning_is_that_of_the_whole_run(lightning, tmp_path, method):
    def run(**options):
        average = lightning.callbacks.EMAWeightAveraging(decay=0.9)
        return lightning_run(lightning, tmp_path, steps=14, method=method, callbacks=[average], **options)[0].net

    whole = run()
    [half] = tmp_path.glob("*step=7.ckpt")
    again = run(resume=half, seed=1)
    for name, weight in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_lightnings_checkpoints_of_weights_alone_are_sparse(lightning, tmp_path):
    lightning_run(lightning, tmp_path, steps=8, weights_only=True)
    [checkpoint] = tmp_path.glob("*step=7.ckpt")
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert sorted(saved) == sorted(f"net.{name}" for name in perceptron().state_dict())
    assert ms.verify(saved["net.2.weight"] != 0, PATTERN)


def test_checkpoints_of_averages_lack_the_parameters_of_the_method(lightning, tmp_path):
    average = lightning.callbacks.EMAWeightAveraging(decay=0.9)
    options = {"method": TrainableThresholds(), "callbacks": [average]}
    module, _, trainer = lightning_run(lightning, tmp_path, steps=8, **options)
    [checkpoint] = tmp_path.glob("*step=7.ckpt")
    loaded = torch.load(checkpoint, weights_only=True)
    for state in (loaded["state_dict"], loaded["current_model_state"]):
        assert sorted(state) == sorted(module.state_dict())
        assert ms.verify(state["net.2.weight"] != 0, PATTERN, at_most=True)
    average.on_load_checkpoint(trainer, module, loaded)
    assert torch.equal(module.net[2].weight, loaded["current_model_state"]["net.2.weight"])


def test_a_trainer_of_another_model_is_refused(lightning, tmp_path):
    with pytest.raises(
        InputError, match=r"Module does not hold the masked layers, such as '2.weight': create the Spar"
    ):
        lightning_run(lightning, tmp_path, steps=2, on=perceptron())
    with pytest.raises(InputError, match="BertForSequenceClassification does not hold the masked layers"):
        hugging_face_run(str(tmp_path), steps=2, save_strategy="no", on=perceptron())


@pytest.mark.parametrize("names", ["sparsifier, EMA", "EMA, sparsifier", "sparsifier, SWA", "sparsifier, own"])
def test_lightnings_averages_end_sparse_whatever_the_order_of_callbacks(lightning, tmp_path, names):
    from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging

    from masksmith_client.training.lightning import SparsifierCallback

    class OwnAverage(lightning.Callback):
        def on_fit_start(self, trainer, module):
            self.average = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

        def on_train_batch_end(self, trainer, module, *arguments):
            for name, parameter in module.named_parameters():
                self.average[name].lerp_(parameter.detach(), 0.1)

        def on_save_checkpoint(self, trainer, module, checkpoint):
            checkpoint["state_dict"].update(self.average)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = perceptron()

        def training_step(self, given, index):
            return torch.nn.functional.mse_loss(self.net(given[0]), given[1])

        def validation_step(self, given, index):
            self.log("loss", torch.nn.functional.mse_loss(self.net(given[0]), given[1]))

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-2)

    module = Module()
    sparsifier = Sparsifier(module, PATTERN, ms.solve, WAITING)
    average = EMAWeightAveraging(decay=0.9) if "EMA" in names else StochasticWeightAveraging(1e-2, swa_epoch_start=1)
    callbacks = {"sparsifier": SparsifierCallback(sparsifier), "EMA": average, "SWA": average, "own": OwnAverage()}
    best = lightning.callbacks.ModelCheckpoint(tmp_path, monitor="loss")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(count=56)), batch_size=8)
    trainer = lightning.Trainer(
        max_epochs=3, callbacks=[*(callbacks[name] for name in names.split(", ")), best], default_root_dir=tmp_path,
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    trainer.fit(module, data, data)
    assert ms.verify(module.net[2].weight != 0, PATTERN)
    assert sparsifier.report().layers[0].density == 0.5
    saved = Module.load_from_checkpoint(best.best_model_path, weights_only=True)
    assert ms.verify(saved.net[2].weight != 0, PATTERN), "a checkpoint of the middle of training is plain and sparse"
    trainer.test(module, data, ckpt_path="best", verbose=False, weights_only=True)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in saved.state_dict().items())


def test_the_best_model_of_hugging_face_is_baked_with_its_own_masks(tmp_path):
    from safetensors.torch import load_file
    from transformers import BertForSequenceClassification

    model, sparsifier, trainer = hugging_face_run(
        str(tmp_path), steps=8, save_steps=2, load_best_model_at_end=True, eval_strategy="steps", eval_steps=2,
        metric_for_best_model="eval_loss", greater_is_better=True, learning_rate=2e-2,
    )  # fmt: skip
    best = trainer.state.best_model_checkpoint
    assert best is not None
    saved = load_file(f"{best}/model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    read = BertForSequenceClassification.from_pretrained(best)
    for name in sparsifier.masks:
        assert ms.verify(read.get_parameter(name) != 0, PATTERN)


def hugging_face_run(folder, steps, resume=None, seed=0, save_steps=5, on=None, bake=True, **options):
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from masksmith_client.training.hugging_face import SparsifierCallback

    torch.manual_seed(seed)
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    model = BertForSequenceClassification(config)
    layers = "bert.encoder.*" if on is None else None
    sparsifier = Sparsifier(on or model, PATTERN, ms.solve, WAITING, MaskedDecay(), layers=layers)
    generator = torch.Generator().manual_seed(0)
    examples = [{"input_ids": torch.randint(64, (8,), generator=generator), "labels": k % 2} for k in range(64)]
    arguments = TrainingArguments(
        folder, max_steps=steps, per_device_train_batch_size=8, report_to=[], disable_tqdm=True, use_cpu=True,
        save_steps=save_steps, logging_strategy="no", seed=0, gradient_accumulation_steps=2, **options,
    )  # fmt: skip
    callbacks = [SparsifierCallback(sparsifier, bake=bake)]
    trainer = Trainer(model, arguments, train_dataset=examples, eval_dataset=examples[:16], callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model, sparsifier, trainer


def test_hugging_face_trains_bakes_saves_and_resumes(tmp_path):
    from transformers import BertForSequenceClassification

    whole, sparsifier, trainer = hugging_face_run(str(tmp_path / "a"), steps=10)
    assert sparsifier.report().step == 10
    assert len(sparsifier.report().layers) == 12
    assert (tmp_path / "a/checkpoint-5/sparsifier.safetensors").exists()
    trainer.save_model(str(tmp_path / "final"))
    found = BertForSequenceClassification.from_pretrained(tmp_path / "final")
    for name in (layer.name for layer in sparsifier.report().layers):
        assert ms.verify(found.get_parameter(name) != 0, PATTERN)
        assert torch.equal(found.get_parameter(name), whole.get_parameter(name))

    resume = str(tmp_path / "a/checkpoint-5")
    again, sparsifier, _ = hugging_face_run(str(tmp_path / "a"), steps=10, resume=resume, seed=1)
    assert sparsifier.report().step == 10
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight)
    with pytest.raises(InputError, match=r"checkpoint-5 has no sparsifier.safetensors: pass resume_from="):
        hugging_face_run(str(tmp_path / "elsewhere"), steps=10, resume=resume)
    hugging_face_run(str(tmp_path / "other"), steps=5, seed=2)
    with pytest.raises(InputError, match=r"other/checkpoint-5/.* is not of the checkpoint .* Pass resume_from="):
        hugging_face_run(str(tmp_path / "other"), steps=10, resume=resume)


@pytest.fixture
def uploads(monkeypatch):
    """The file of weights, and the names of all files, of each upload to a hub, which is replaced by this list."""
    from huggingface_hub import HfApi
    from safetensors.torch import load_file

    uploaded = []

    def upload_folder(self, *, folder_path, commit_message, **options):
        folder = Path(folder_path)
        uploaded.append(
            (commit_message, load_file(folder / "model.safetensors"), {path.name for path in folder.iterdir()})
        )
        return SimpleNamespace(done=lambda: True)

    monkeypatch.setattr(HfApi, "create_repo", lambda self, *arguments, **options: SimpleNamespace(repo_id="a/b"))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploaded


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints", "end"])
def test_what_the_trainer_uploads_is_masked(tmp_path, uploads, strategy, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.create_model_card", lambda self, **options: None)
    folder = str(tmp_path / "run")
    options = {"save_steps": 2, "push_to_hub": True, "hub_strategy": strategy, "save_total_limit": 1}
    model, sparsifier, trainer = hugging_face_run(folder, steps=4, **options)
    trainer.push_to_hub()
    of_checkpoints = [files for message, _, files in uploads if message.endswith(", checkpoint")]
    assert len(uploads) == {"end": 1, "every_save": 3}.get(strategy, 5)
    assert all("sparsifier.safetensors" in files for files in of_checkpoints)
    for _, state, _ in uploads:
        assert all(ms.verify(state[layer.name] != 0, PATTERN) for layer in sparsifier.report().layers)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in uploads[-1][1].items())
    # `push_to_hub` after training changes no checkpoint: this one still has the values with which training resumes.
    resumed, _, _ = hugging_face_run(folder, steps=4, resume=f"{folder}/checkpoint-4", seed=1)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_dense_weights_are_not_uploaded_after_training_without_bake(tmp_path, uploads, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.create_model_card", lambda self, **options: None)
    options = {"save_steps": 2, "push_to_hub": True, "bake": False}
    model, sparsifier, trainer = hugging_face_run(str(tmp_path), steps=2, **options)
    with pytest.raises(InputError, match=r"would upload dense weights: call sparsifier.bake\(\) before it"):
        trainer.push_to_hub()
    sparsifier.bake()
    trainer.push_to_hub()
    message, state, _ = uploads[-1]
    assert message == "End of training"
    assert all(ms.verify(state[layer.name] != 0, PATTERN) for layer in sparsifier.report().layers)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())


def test_a_trainer_that_would_upload_dense_weights_is_refused(tmp_path, uploads, monkeypatch):
    monkeypatch.delattr("transformers.TrainerCallback.on_push_begin")
    with pytest.raises(InputError, match="this version of transformers would upload dense weights during training"):
        hugging_face_run(str(tmp_path), steps=2, push_to_hub=True)
    hugging_face_run(str(tmp_path), steps=2, save_strategy="no", push_to_hub=True, hub_strategy="end")


def test_a_trainer_that_saves_to_other_folders_is_refused(model, tmp_path):
    from masksmith_client.training.hugging_face import SparsifierCallback

    callback = SparsifierCallback(Sparsifier(model, PATTERN, ms.solve, WAITING))
    (tmp_path / "run-0" / "checkpoint-2").mkdir(parents=True)
    arguments, state = SimpleNamespace(output_dir=tmp_path), SimpleNamespace(global_step=2, is_world_process_zero=True)
    with pytest.raises(InputError, match=r"no checkpoint to .*/checkpoint-2: .*hyperparameter search"):
        callback.on_save(arguments, state, None, model=model)


@pytest.mark.parametrize(("module", "library"), [("lightning", "lightning"), ("hugging_face", "transformers")])
def test_a_missing_library_is_named_with_the_line_that_installs_it(module, library, monkeypatch):
    name, extra = f"masksmith_client.training.{module}", module.replace("_", "")
    for found in {library, *(each for each in sys.modules if each.startswith(f"{library}."))}:
        monkeypatch.setitem(sys.modules, found, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'masksmith\[{extra}\]'"):
        importlib.import_module(name)
