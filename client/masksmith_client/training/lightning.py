"""Callback that runs a sparsifier in a Lightning Trainer.

    from masksmith_client.training.lightning import SparsifierCallback

    trainer = lightning.Trainer(callbacks=[SparsifierCallback(sparsifier)])

It needs the extra `lightning`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .copies import with_removed
from .optimizers import must_be_watched
from .sparsifier import Sparsifier

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import Checkpoint
    from lightning.pytorch.strategies import Strategy
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "masksmith_client.training.lightning needs lightning: pip install 'masksmith[lightning]'", name=error.name
    ) from None


CURRENT_MODEL, PRUNED_AVERAGE = "current_model_state", "masksmith_pruned_average"
"""Members of a checkpoint whose `state_dict` is an average of weights. The first is the state of the model that is
trained, and is written by Lightning's callbacks; the second is what masks have removed from the average."""


class SparsifierCallback(Callback):  # type: ignore[misc] # lightning is untyped
    """Calls the sparsifier's `step` after each batch with an optimizer step, and saves its state in checkpoints.

    Create the sparsifier on the LightningModule before `fit`. In a checkpoint, `state_dict` holds the masked weights
    under their usual names. The values of pruned entries, needed to resume, are in the state of this callback. If
    `state_dict` is an average of weights, the values of the average's pruned entries are in the member
    `PRUNED_AVERAGE`.

    Args:
        sparsifier: A sparsifier of the LightningModule.
        bake: Whether to bake the masks into the weights at the end of `fit`; see `Sparsifier.bake`.
    """

    def __init__(self, sparsifier: Sparsifier, *, bake: bool = True) -> None:
        self.sparsifier = sparsifier
        self._bake = bake
        self._steps = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make all checkpoints hold masked weights, also those of weights alone (`save_weights_only`) and of averages.

        Lightning calls no callback for a checkpoint of weights alone, so the strategy's state dict is masked. Averages
        are masked by `on_save_checkpoint` of this callback. For that, this callback is moved behind all callbacks that
        may write weights.
        """
        read_state = partial(_masked_state, self.sparsifier, trainer.strategy)
        trainer.strategy.lightning_module_state_dict = read_state
        others = [callback for callback in trainer.callbacks if callback is not self]
        position = max((index for index, callback in enumerate(others) if _may_write_weights(callback)), default=-1) + 1
        if trainer.callbacks.index(self) < position:
            trainer.callbacks = [*others[:position], self, *others[position:]]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise `InputError` if the LightningModule holds no masked layer, or one of another sparsifier."""
        self.sparsifier.check_model(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the process group, note the number of optimizer steps so far, and register optimizers if needed.

        Lightning initializes `torch.distributed` in `fit`, after the sparsifier was created.

        Raises:
            InputError: If an optimizer ascends gradients and the method does not support that; see `Sparsifier.watch`.
        """
        self._steps = trainer.global_step
        self.sparsifier.join_process_group()
        if must_be_watched(self.sparsifier.method, *trainer.optimizers):
            self.sparsifier.watch(*trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call the sparsifier's `step` if an optimizer has stepped; while gradients are accumulated, none does."""
        if trainer.global_step != self._steps:
            self._steps = trainer.global_step
            self.sparsifier.step()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bake the masks into the weights, unless `bake` is False.

        If another callback averages weights, the model has the average by then.
        """
        if self._bake and not self.sparsifier.is_baked:
            self.sparsifier.bake()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Mask the checkpoint's weights, since other callbacks may have replaced them by an average; not after baking.

        What masks remove from an average is saved, too.
        """
        if not self.sparsifier.is_baked:
            # A copy is changed, since another callback may hold this dict.
            state = checkpoint["state_dict"] = dict(checkpoint["state_dict"])
            if CURRENT_MODEL in checkpoint:
                checkpoint[PRUNED_AVERAGE] = self.sparsifier.removed_by_masks(state, pl_module)
            self.sparsifier.mask_state_dict(state, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the sparsifier's refresh worker."""
        self.sparsifier.close()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Restore the pruned values of averages, or the sparse weights of a baked model.

        The average in the checkpoint is masked; callbacks that average weights load it again with the values that masks
        had removed. If the masks are baked, such a callback may have loaded dense weights into the model, so the
        checkpoint's weights are loaded again.
        """
        if self.sparsifier.is_baked:
            pl_module.load_state_dict(checkpoint["state_dict"])
        elif PRUNED_AVERAGE in checkpoint:
            state = with_removed(checkpoint["state_dict"], checkpoint[PRUNED_AVERAGE])
            for callback in filter(_averages_weights, trainer.callbacks):
                callback.on_load_checkpoint(trainer, pl_module, {**checkpoint, "state_dict": state})

    def state_dict(self) -> dict[str, Any]:
        """Return the sparsifier's state for a checkpoint; it has the values of pruned entries until masks are baked."""
        return self.sparsifier.state_dict(pruned=not self.sparsifier.is_baked)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the sparsifier's state from Lightning's checkpoint; a baked model needs none."""
        if not self.sparsifier.is_baked:
            self.sparsifier.load_state_dict(state_dict)


def _masked_state(sparsifier: Sparsifier, strategy: Strategy) -> dict[str, Any]:
    """Return the LightningModule's state dict for a checkpoint, with masked weights."""
    state = dict(type(strategy).lightning_module_state_dict(strategy))
    if not sparsifier.is_baked:
        sparsifier.mask_state_dict(state, strategy.lightning_module)
    return state


def _may_write_weights(callback: Callback) -> bool:
    """Whether a callback may write weights into the model or a checkpoint, such as a user's own averaging."""
    # Lightning's callbacks that save checkpoints (`Checkpoint`) are excluded: they must run after this callback's step,
    # so that they save the masks of that step.
    has_hook = type(callback).on_save_checkpoint is not Callback.on_save_checkpoint
    return _averages_weights(callback) or (has_hook and not isinstance(callback, Checkpoint))


def _averages_weights(callback: Callback) -> bool:
    # Classes are recognised by name, since some versions of Lightning have no `WeightAveraging`.
    names = [base.__name__ for base in type(callback).__mro__]
    return "WeightAveraging" in names or "StochasticWeightAveraging" in names
