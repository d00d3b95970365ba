"""What all batches call the blocks with, in memory or in files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch

from masksmith._errors import PruningError

from .activations import Activations, InMemory, OnDisk
from .blocks import BlockList
from .call_trees import Decoder, Encoder
from .calls import Call
from .capture import CapturedBatch
from .tensor_files import read_tensors, write_tensors

KEPT = "kept"


class Captured(Protocol):
    """What the blocks are called with in every batch.

    Attributes:
        order: Numbers of the blocks, in the order in which they run.
        kept: For each batch, `[sequences, tokens]`, False at padding; None where nothing is padded.
        inputs: What the first block gets from the model.
    """

    order: list[int]
    kept: list[torch.Tensor | None]
    inputs: Activations

    def call(self, block: int, batch: int) -> Call:
        """Return a call of a block."""

    def forget(self, block: int) -> None:
        """Free the calls of a block that is finished."""


def check_order(order: list[int], expected: list[int], batch: int) -> None:
    """Refuse a batch that runs the blocks in another order than the first one.

    Raises:
        PruningError: If it does.
    """
    if order != expected:
        raise PruningError(f"batch {batch} runs the blocks in another order than batch 0")


class CapturedInMemory:
    """Calls in memory."""

    def __init__(self, batches: Iterable[CapturedBatch]) -> None:
        self.order: list[int] = []
        self.kept: list[torch.Tensor | None] = []
        self.inputs: Activations = InMemory()
        self._calls: list[list[Call]] = []
        for number, batch in enumerate(batches):
            self.order = self.order or batch.order
            check_order(batch.order, self.order, number)
            self.kept.append(batch.kept)
            self.inputs.write(number, batch.inputs)
            self._calls = self._calls or [[] for _ in batch.calls]
            for calls, call in zip(self._calls, batch.calls, strict=True):
                calls.append(call)
        if not self.kept:
            raise PruningError("there is no batch to calibrate with")

    def call(self, block: int, batch: int) -> Call:
        """Return a call of a block."""
        return self._calls[block][batch]

    def forget(self, block: int) -> None:
        """Free the calls of a block that is finished."""
        self._calls[block] = []


class CapturedOnDisk:
    """Calls in a folder, one file for each batch.

    Args:
        folder: The folder.
        blocks: The blocks, for messages.

    Attributes:
        count: Number of batches at the beginning that are complete.
    """

    def __init__(self, folder: Path, blocks: BlockList) -> None:
        self._folder, self._blocks = folder, blocks
        self.inputs: Activations = OnDisk(folder / "inputs")
        self.order: list[int] = []
        self.kept: list[torch.Tensor | None] = []
        while self._path(self.count).exists():
            _, texts = read_tensors(self._path(self.count), ())
            self.order = json.loads(texts["order"])
            self.kept.append(self._read_kept() if KEPT in texts else None)

    def _read_kept(self) -> torch.Tensor:
        tensors, _ = read_tensors(self._path(self.count), (KEPT,))
        return tensors[KEPT]

    @property
    def count(self) -> int:
        """Number of batches that are captured."""
        return len(self.kept)

    def add(self, batch: CapturedBatch) -> None:
        """Write the calls of the next batch.

        Raises:
            PruningError: If an argument is of a class that cannot be written, or the blocks run in another order.
        """
        number = self.count
        self.order = self.order or batch.order
        check_order(batch.order, self.order, number)
        encoder = Encoder()
        trees = [encoder.encode((call.arguments, dict(call.keywords)), self._blocks.name(block))
                 for block, call in enumerate(batch.calls)]  # fmt: skip
        texts = {"order": json.dumps(batch.order), "calls": json.dumps(trees)}
        tensors = dict(encoder.tensors)
        if batch.kept is not None:
            tensors[KEPT], texts[KEPT] = batch.kept, "is in the file"
        self.inputs.write(number, batch.inputs)
        write_tensors(self._path(number), tensors, texts)
        self.kept.append(batch.kept)

    def call(self, block: int, batch: int) -> Call:
        """Read a call of a block."""
        path = self._path(batch)
        _, texts = read_tensors(path, ())
        tree = json.loads(texts["calls"])[block]
        decoder = Decoder(tree)
        tensors, _ = read_tensors(path, decoder.names)
        arguments, keywords = decoder.decode(tensors)
        return Call(arguments, keywords)

    def forget(self, block: int) -> None:
        """Keep the files: a later run may need them."""

    def _path(self, batch: int) -> Path:
        return self._folder / f"{batch:05}.safetensors"
