"""Two ranks that Lightning starts, which initializes the process group in `fit`; run as a program."""

import sys

import lightning.pytorch as lightning
import torch

import masksmith as ms
from masksmith_client.training import Refresh, Sparsifier
from masksmith_client.training.lightning import SparsifierCallback
from support.training_loop import batch, perceptron


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = perceptron(seed=torch.seed() % 1000)

    def training_step(self, given, index):
        inputs, targets = given
        return torch.nn.functional.mse_loss(self.net(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.2)


class Recorder(lightning.Callback):
    """Saves what each rank has at the first batch and at the end."""

    def __init__(self, sparsifier, folder):
        self.sparsifier, self.folder, self.masks = sparsifier, folder, None

    def on_train_batch_start(self, trainer, module, given, index):
        self.masks = self.masks or self.sparsifier.masks

    def on_train_end(self, trainer, module):
        results = {"first": self.masks, "masks": self.sparsifier.masks, "weights": module.net.state_dict()}
        torch.save(results, f"{self.folder}/{trainer.global_rank}.pt")


def main(folder):
    torch.set_num_threads(1)
    module = Module()
    sparsifier = Sparsifier(module, "2:4", ms.solve, Refresh(every=3, wait=True), "prune-and-grow until=99")
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(count=64)), batch_size=4)
    trainer = lightning.Trainer(
        max_steps=8, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        callbacks=[SparsifierCallback(sparsifier, bake=False), Recorder(sparsifier, folder)],
    )  # fmt: skip
    trainer.fit(module, data)


if __name__ == "__main__":
    main(sys.argv[1])
