"""A sparsifier in a Lightning trainer; needs the extra `lightning`.

from masksmith_client.training.lightning import SparsifierCallback

trainer = lightning.Trainer(callbacks=[SparsifierCallback(sparsifier)])
"""

from __future__ import annotations

from typing import Any

from .sparsifier import Sparsifier

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "masksmith_client.training.lightning needs lightning: pip install 'masksmith[lightning]'", name=error.name
    ) from None


class SparsifierCallback(Callback):  # type: ignore[misc] # lightning is not looked into
    """Steps a sparsifier with the optimizer, and keeps its state in Lightning's checkpoints.

    Make the sparsifier on the LightningModule before `fit`, so that a checkpoint finds the same parameters.

    Args:
        sparsifier: The sparsifier.
        bake: Whether the masked weights are left in the model at the end of training, and nothing else.
    """

    def __init__(self, sparsifier: Sparsifier, *, bake: bool = True) -> None:
        self.sparsifier = sparsifier
        self._bake = bake
        self._steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Watch the optimizer."""
        self._steps = trainer.global_step
        if self.sparsifier.method.needs_optimizer:
            self.sparsifier.watch(trainer.optimizers[0])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Step, unless gradients are still being accumulated."""
        if trainer.global_step != self._steps:
            self._steps = trainer.global_step
            self.sparsifier.step()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bake."""
        if self._bake:
            self.sparsifier.bake()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop refreshing."""
        self.sparsifier.close()

    def state_dict(self) -> dict[str, Any]:
        """Give the sparsifier's state."""
        return self.sparsifier.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.sparsifier.load_state_dict(state_dict)
