"""Callback that runs a sparsifier in a Lightning Trainer; needs the extra `lightning`.

from masksmith_client.training.lightning import SparsifierCallback

trainer = lightning.Trainer(callbacks=[SparsifierCallback(sparsifier)])
"""

from __future__ import annotations

from typing import Any

from .sparsifier import Sparsifier

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "masksmith_client.training.lightning needs lightning: pip install 'masksmith[lightning]'", name=error.name
    ) from None


class SparsifierCallback(Callback):  # type: ignore[misc] # lightning is untyped
    """Calls the sparsifier's `step` after each optimizer step, and saves its state in Lightning's checkpoints.

    Create the sparsifier on the LightningModule before `fit`, so that the parameters match those of the checkpoint.

    Args:
        sparsifier: The sparsifier.
        bake: Whether to bake the masks into the weights at the end of training; see `Sparsifier.bake`.
    """

    def __init__(self, sparsifier: Sparsifier, *, bake: bool = True) -> None:
        self.sparsifier = sparsifier
        self._bake = bake
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the optimizers, if the method needs them."""
        self._steps = trainer.global_step
        if self.sparsifier.method.needs_optimizer:
            self.sparsifier.watch(trainer.optimizers)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call the sparsifier's `step`, unless gradients are still accumulated."""
        if trainer.global_step != self._steps:
            self._steps = trainer.global_step
            self.sparsifier.step()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bake the masks into the weights, unless `bake` is False; all callbacks have set the final weights by now."""
        averages = any(isinstance(one, WeightAveraging | StochasticWeightAveraging) for one in trainer.callbacks)
        if averages and self.sparsifier.report().pattern is not None:
            # The masks so far were those of the weights before averaging.
            self.sparsifier.refresh_now()
        if self._bake:
            self.sparsifier.bake()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop the refresh worker."""
        self.sparsifier.close()

    def state_dict(self) -> dict[str, Any]:
        """Return the sparsifier's state, for Lightning's checkpoint."""
        return self.sparsifier.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the sparsifier's state from Lightning's checkpoint."""
        self.sparsifier.load_state_dict(state_dict)
