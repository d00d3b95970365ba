"""Callback that runs a sparsifier in a Hugging Face Trainer.

    from masksmith_client.training.hugging_face import SparsifierCallback

    trainer = transformers.Trainer(model, callbacks=[SparsifierCallback(sparsifier)])

It needs the extra `huggingface`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masksmith._atomic_write import replaced_when_complete
from masksmith_client._errors import InputError

from .optimizers import must_be_watched
from .sharding import is_dtensor
from .sparsifier import Sparsifier
from .state import write_state

try:
    from safetensors.torch import save_file
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_utils import HubStrategy
    from transformers.utils import SAFE_WEIGHTS_NAME
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "masksmith_client.training.hugging_face needs transformers: pip install 'masksmith[huggingface]'",
        name=error.name,
    ) from None

STATE_FILE = "sparsifier.safetensors"


class SparsifierCallback(TrainerCallback):  # type: ignore[misc] # transformers is untyped
    """Calls the sparsifier's `step` after each optimizer step, and saves its state in the Trainer's checkpoints.

    Checkpoints of transformers models hold masked weights under plain names, which `from_pretrained` reads; the
    sparsifier's file beside them holds the masks, and the values of pruned entries, with which training resumes. With
    `push_to_hub`, the Trainer uploads these files. For sharded models the Trainer saves and uploads the dense weights
    instead, and the sparsifier's file, which is not uploaded, holds the masks without these values.

    Args:
        sparsifier: The sparsifier.
        bake: Whether to bake the masks into the weights at the end of training; see `Sparsifier.bake`.
        resume_from: The folder of the checkpoint that training resumes from, if it is not in the Trainer's
            `output_dir`. The Trainer does not pass it to callbacks. A state that does not fit the weights that the
            Trainer has loaded is refused, unless the model is sharded.
    """

    def __init__(self, sparsifier: Sparsifier, *, bake: bool = True, resume_from: str | Path | None = None) -> None:
        self.sparsifier = sparsifier
        self._bake = bake
        self._resume_from = resume_from
        # The folder of a checkpoint that was completed before the Trainer uploaded it; None if there is none.
        self._completed: Path | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Load the sparsifier's state if training resumes, and register the optimizer if the method needs it.

        Raises:
            InputError: If the Trainer's model holds no masked layer, or one of another sparsifier; if the checkpoint
                has no file of the sparsifier, or the file does not fit the sparsifier or the weights that the Trainer
                has loaded; if the optimizer ascends gradients, which the method does not support; or if the Trainer
                would upload dense weights.
        """
        _check_uploads(args)
        self.sparsifier.check_model(kwargs["model"])
        if state.global_step > 0:
            folder = _checkpoint_folder(args, state) if self._resume_from is None else Path(self._resume_from)
            if not (folder / STATE_FILE).exists():
                raise InputError(f"{folder} has no {STATE_FILE}: pass resume_from= with the checkpoint's folder")
            try:
                self.sparsifier.load(folder / STATE_FILE, check_weights=True)
            except InputError as error:
                raise InputError(f"{error}. Pass resume_from= if training resumes from another folder") from None
        if must_be_watched(self.sparsifier.method, kwargs["optimizer"]):
            self.sparsifier.watch(kwargs["optimizer"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Call the sparsifier's `step`; the Trainer calls this after each optimizer step."""
        self.sparsifier.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the sparsifier's state to the checkpoint's folder, on rank 0.

        Unless the model is sharded, also replace the dense weights that the Trainer has saved there by masked ones.

        Raises:
            InputError: If the Trainer has saved to another folder, as a hyperparameter search does.
        """
        folder = _checkpoint_folder(args, state)
        completed, self._completed = self._completed, None
        if folder != completed:
            self._complete(folder, kwargs["model"], is_writer=state.is_world_process_zero)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Do the work of `on_save` before the Trainer uploads a checkpoint that it has just saved.

        The Trainer calls this on rank 0, and `on_save` only after the upload has begun. A sharded model needs all ranks
        to gather its masks, so its files are uploaded as the Trainer has saved them. `Trainer.push_to_hub` calls this,
        too, before it saves the model's own weights, which are masked only if they are baked.

        Raises:
            InputError: If `Trainer.push_to_hub` would upload dense weights.
        """
        model = kwargs["model"]
        if _has_shards(model):
            return
        if control.should_save:
            folder = _checkpoint_folder(args, state)
            self._complete(folder, model, is_writer=True)
            self._completed = folder
        elif not self.sparsifier.is_baked:
            raise InputError("Trainer.push_to_hub would upload dense weights: call sparsifier.bake() before it")

    def _complete(self, folder: Path, model: Any, *, is_writer: bool) -> None:
        """Add the sparsifier's state to a checkpoint, and mask its weights; for a sharded model, all ranks call this.

        Args:
            folder: The checkpoint's folder.
            model: The model.
            is_writer: Whether this rank writes the files.
        """
        has_shards = _has_shards(model)
        if has_shards or self.sparsifier.is_baked:
            # The Trainer's shards hold the dense weights, and baked weights have no pruned values.
            sparsifier_state = self.sparsifier.state_dict()
        else:
            sparsifier_state = self.sparsifier.state_dict(pruned=True)
        if not is_writer:
            return
        if not folder.is_dir():
            raise InputError(
                f"the Trainer has saved no checkpoint to {folder}: a Trainer that saves to other folders than "
                "output_dir/checkpoint-STEP, as a hyperparameter search does, is not supported"
            )
        write_state(sparsifier_state, folder / STATE_FILE)
        if not has_shards:
            self._save_masked(model, folder)

    def _save_masked(self, model: Any, folder: Path) -> None:
        """Write the masked weights in place of the dense ones that the Trainer has saved, if it has saved the model."""
        is_pretrained, weights_path = (folder / "config.json").exists(), folder / SAFE_WEIGHTS_NAME
        if not is_pretrained and not weights_path.exists():
            return
        masked_state = dict(model.state_dict())
        self.sparsifier.mask_state_dict(masked_state, model)
        if is_pretrained:  # Only transformers models have a config.json.
            model.save_pretrained(folder, state_dict=masked_state)
            return
        # A module of the user's own: the Trainer writes its state dict to this file.
        with replaced_when_complete(weights_path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in masked_state.items()}, temporary, {"format": "pt"})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bake the masks into the weights, unless `bake` is False.

        If the Trainer has loaded the weights of the best checkpoint, load that checkpoint's masks first.
        """
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self.sparsifier.load(Path(state.best_model_checkpoint) / STATE_FILE)
        if self._bake:
            self.sparsifier.bake()


def _checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _has_shards(model: Any) -> bool:
    return any(is_dtensor(parameter) for parameter in model.parameters())


def _check_uploads(args: TrainingArguments) -> None:
    """Refuse uploads of checkpoints by a version of transformers that calls no callback before an upload.

    Raises:
        InputError: If the Trainer uploads checkpoints, and its weights could not be masked before.
    """
    if args.push_to_hub and args.hub_strategy != HubStrategy.END and not hasattr(TrainerCallback, "on_push_begin"):
        raise InputError(
            "this version of transformers would upload dense weights during training: upgrade it, or pass "
            "hub_strategy='end'"
        )
