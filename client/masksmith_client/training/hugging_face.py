"""A sparsifier in a Hugging Face Trainer; needs the extra `huggingface`.

from masksmith_client.training.hugging_face import SparsifierCallback

trainer = transformers.Trainer(model, callbacks=[SparsifierCallback(sparsifier)])
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masksmith_client._errors import InputError

from .sparsifier import Sparsifier

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "masksmith_client.training.hugging_face needs transformers: pip install 'masksmith[huggingface]'",
        name=error.name,
    ) from None

FILE = "sparsifier.safetensors"


class SparsifierCallback(TrainerCallback):  # type: ignore[misc] # transformers is not looked into
    """Steps a sparsifier with the optimizer, and keeps its state beside the Trainer's checkpoints.

    Make the sparsifier before the Trainer, so that a checkpoint finds the same parameters. Checkpoints on the way hold
    dense weights under their parametrized names; after the end of training the model is an ordinary one again.

    Args:
        sparsifier: The sparsifier.
        bake: Whether the masked weights are left in the model at the end of training, and nothing else.
        resume_from: The folder of the checkpoint that training resumes from, if it lies elsewhere than the Trainer's
            own checkpoints.
    """

    def __init__(self, sparsifier: Sparsifier, *, bake: bool = True, resume_from: str | Path | None = None) -> None:
        self.sparsifier = sparsifier
        self._bake = bake
        self._resume_from = resume_from

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Watch the optimizer, and go on where a resumed run stopped.

        Raises:
            InputError: If the checkpoint has no state of a sparsifier.
        """
        if state.global_step > 0:
            folder = _checkpoint(args, state) if self._resume_from is None else Path(self._resume_from)
            if not (folder / FILE).exists():
                raise InputError(f"{folder} has no {FILE}: pass resume_from= with the checkpoint's folder")
            self.sparsifier.load(folder / FILE)
        if self.sparsifier.method.needs_optimizer:
            # accelerate wraps the optimizer, and the wrapper has no hooks.
            self.sparsifier.watch(getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"]))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Step; the Trainer calls this once an optimizer step."""
        self.sparsifier.step()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the state beside the model."""
        if state.is_world_process_zero:
            self.sparsifier.save(_checkpoint(args, state) / FILE)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Bake."""
        if self._bake:
            self.sparsifier.bake()


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
