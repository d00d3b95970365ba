"""Recorded calls of the blocks in all batches, with token masks and inputs, in memory or in files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch

from masksmith._errors import PruningError

from .activations import Activations, ActivationsInMemory, ActivationsOnDisk
from .blocks import BlockList
from .call_trees import Decoder, Encoder
from .calls import Call, map_leaves, tensors_of
from .capture import CapturedBatch
from .tensor_files import read_tensors, write_tensors

TOKEN_MASK = "kept"
"""Name of the token mask in the file of a batch; if the batch has a token mask, the metadata has this key, too."""


class Captured(Protocol):
    """The calls of the blocks in all batches.

    Attributes:
        order: Numbers of the blocks, in the order in which the model runs them.
        token_masks: The mask of each batch: `[sequences, tokens]`, False at padding; None where nothing is padded.
        inputs: Activations that the model passes to the first block, by batch.
    """

    order: list[int]
    token_masks: list[torch.Tensor | None]
    inputs: Activations

    def call(self, block: int, batch: int) -> Call:
        """Return the call of a block in a batch."""

    def forget(self, block: int) -> None:
        """Free the memory that the calls of a finished block take, if they are in memory."""


def check_order(order: list[int], expected: list[int], batch: int) -> None:
    """Refuse a batch in which the model runs the blocks in another order than in the first batch.

    Raises:
        PruningError: If the order differs.
    """
    if order != expected:
        raise PruningError(f"batch {batch} runs the blocks in another order than batch 0")


class CapturedInMemory:
    """Calls, token masks and inputs in memory; arguments that are equal in consecutive batches take memory once.

    Args:
        batches: The recorded batches.

    Raises:
        PruningError: If there is no batch, or a batch runs the blocks in another order than the first one.
    """

    def __init__(self, batches: Iterable[CapturedBatch]) -> None:
        self.order: list[int] = []
        self.token_masks: list[torch.Tensor | None] = []
        self.inputs: Activations = ActivationsInMemory()
        self._calls: list[list[Call]] = []  # by block, then by batch
        for number, batch in enumerate(batches):
            self.order = self.order or batch.order
            check_order(batch.order, self.order, number)
            self.token_masks.append(batch.token_mask)
            self.inputs.write(number, batch.inputs)
            self._calls = self._calls or [[] for _ in batch.calls]
            kept: dict[int, torch.Tensor] = {}
            for calls, call in zip(self._calls, batch.calls, strict=True):
                calls.append(_with_shared_tensors(call, calls[-1], kept) if calls else call)
        if not self.token_masks:
            raise PruningError("there is no batch to calibrate with")

    def call(self, block: int, batch: int) -> Call:
        """Return the call of a block in a batch."""
        return self._calls[block][batch]

    def forget(self, block: int) -> None:
        """Free the memory of the calls of a block that is finished."""
        self._calls[block] = []


def _with_shared_tensors(call: Call, previous: Call, kept: dict[int, torch.Tensor]) -> Call:
    """Return a call with the tensors of a block's previous call in place of equal ones, such as masks of positions.

    Args:
        call: The call.
        previous: The call of the same block in the previous batch.
        kept: For each tensor of the batch that was compared, by its identity, the tensor to keep; added to in place.
    """
    tensors = tensors_of((call.arguments, call.keywords))
    others = tensors_of((previous.arguments, previous.keywords))
    for tensor, other in zip(tensors, others, strict=False):
        if id(tensor) not in kept:
            kept[id(tensor)] = other if _is_equal_copy(tensor, other) else tensor
    arguments, keywords = map_leaves((call.arguments, dict(call.keywords)), lambda leaf: kept.get(id(leaf), leaf))
    return Call(arguments, keywords)


def _is_equal_copy(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two recorded tensors are copies, not parameters, and equal in all that a block can see of them."""
    if not (type(tensor) is type(other) is torch.Tensor and tensor.layout == other.layout == torch.strided):
        return False
    one, two = ((each.shape, each.dtype, each.device, each.stride()) for each in (tensor, other))
    return one == two and torch.equal(tensor, other)


class CapturedOnDisk:
    """Calls and token masks in a folder, one file for each batch; inputs in a folder inside it.

    Args:
        folder: The folder; batches that an earlier run recorded there need not be added again.
        blocks: The blocks; their names are for error messages.
    """

    def __init__(self, folder: Path, blocks: BlockList) -> None:
        self._folder, self._blocks = folder, blocks
        self.inputs: Activations = ActivationsOnDisk(folder / "inputs")
        self.order: list[int] = []
        self.token_masks: list[torch.Tensor | None] = []
        while self._path(self.count).exists():
            path = self._path(self.count)
            _, metadata = read_tensors(path, ())
            self.order = json.loads(metadata["order"])
            self.token_masks.append(_read_token_mask(path) if TOKEN_MASK in metadata else None)

    @property
    def count(self) -> int:
        """Number of batches whose calls are recorded."""
        return len(self.token_masks)

    def add(self, batch: CapturedBatch) -> None:
        """Write the calls, the token mask and the inputs of the next batch.

        Raises:
            PruningError: If an argument is of a class that cannot be written, or the blocks run in another order than
                in the first batch.
        """
        number = self.count
        self.order = self.order or batch.order
        check_order(batch.order, self.order, number)
        encoder = Encoder()
        trees = [encoder.encode((call.arguments, dict(call.keywords)), self._blocks.name(block))
                 for block, call in enumerate(batch.calls)]  # fmt: skip
        metadata = {"order": json.dumps(batch.order), "calls": json.dumps(trees)}
        tensors = dict(encoder.tensors)
        if batch.token_mask is not None:
            tensors[TOKEN_MASK], metadata[TOKEN_MASK] = batch.token_mask, "is in the file"
        self.inputs.write(number, batch.inputs)
        write_tensors(self._path(number), tensors, metadata)
        self.token_masks.append(batch.token_mask)

    def call(self, block: int, batch: int) -> Call:
        """Read the call of a block in a batch."""
        path = self._path(batch)
        _, metadata = read_tensors(path, ())
        tree = json.loads(metadata["calls"])[block]
        decoder = Decoder(tree)
        tensors, _ = read_tensors(path, decoder.names)
        arguments, keywords = decoder.decode(tensors)
        return Call(arguments, keywords)

    def forget(self, block: int) -> None:
        """Do nothing: the calls are in files, which a later run may need."""

    def _path(self, batch: int) -> Path:
        return self._folder / f"{batch:05}.safetensors"


def _read_token_mask(path: Path) -> torch.Tensor:
    tensors, _ = read_tensors(path, (TOKEN_MASK,))
    return tensors[TOKEN_MASK]
