"""Oracle: the axis that each tensor of a checkpoint is summed over, read from the values that enter a model's products.

Every entry of the checkpoint gets a value of its own. The model is loaded and run as it is, and wherever a product's
operand consists of such values alone, each of them says which entry of which tensor it is. So nothing is assumed of
names, of the conversions that loading makes, of views, transposes or copies.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.overrides import TorchFunctionMode

LINEAR = {"linear": 1}
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
MATMUL = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm"}


@dataclass(frozen=True)
class Product:
    """How a tensor enters a product: its dimensions along which the sum runs, the outputs run, or neither."""

    summed: frozenset[int]
    outputs: frozenset[int]


@dataclass
class Seen:
    """All products by tensor, and the tensors that depthwise convolutions and look-ups use."""

    products: dict[str, set[Product]] = field(default_factory=dict)
    depthwise: set[str] = field(default_factory=set)
    looked_up: set[str] = field(default_factory=set)


class Coded:
    """A checkpoint whose every entry has a value of its own."""

    def __init__(self, source: Path, target: Path, seed: int) -> None:
        shutil.copytree(source, target)
        (file,) = target.glob("*.safetensors")
        shapes = {name: tensor.shape for name, tensor in load_file(file).items()}
        total = sum(map(math.prod, shapes.values()))
        assert total < 2**23
        rng = np.random.default_rng(seed)
        self.scale = 2.0 ** math.ceil(math.log2(total + 1))
        codes = rng.permutation(total) + 1
        self.names, self.shapes = list(shapes), list(shapes.values())
        self.owner, self.place = np.zeros(total + 1, np.int64), np.zeros(total + 1, np.int64)
        tensors, first = {}, 0
        for number, (name, shape) in enumerate(shapes.items()):
            mine = codes[first : first + math.prod(shape)]
            self.owner[mine], self.place[mine] = number, np.arange(len(mine))
            signs = rng.choice([-1.0, 1.0], len(mine))
            tensors[name] = (mine / self.scale * signs).astype(np.float32).reshape(shape)
            first += len(mine)
        save_file(tensors, file, {"format": "pt"})

    def read(self, operand: torch.Tensor) -> dict[str, list[np.ndarray]]:
        """Return the places of an operand's entries in each tensor, by dimension (-1: another tensor's), or nothing."""
        codes = np.abs(operand.detach().double().numpy()) * self.scale
        if codes.size == 0 or not np.all((codes >= 1) & (codes < len(self.owner)) & (codes == np.round(codes))):
            return {}
        codes = codes.astype(np.int64)
        if len(np.unique(codes)) < codes.size:
            return {}
        found = {}
        for number in np.unique(self.owner[codes]):
            places = np.unravel_index(self.place[codes], self.shapes[number])
            found[self.names[number]] = [np.where(self.owner[codes] == number, place, -1) for place in places]
        return found


class Recorder(TorchFunctionMode):
    def __init__(self, coded: Coded) -> None:
        super().__init__()
        self.coded, self.seen = coded, Seen()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in LINEAR:
            self.note(args[1], summed=[-1], outputs=[-2])
        elif name in MATMUL:
            left, right = [*args, *(each for each in (kwargs or {}).values() if isinstance(each, torch.Tensor))][-2:]
            if name == "__rmatmul__":
                left, right = right, left
            self.note(right, summed=[-2], outputs=[-1])
            self.note(left, summed=[-1], outputs=[-2])
        elif name in CONVOLUTIONS:
            self.note_convolution(args, kwargs or {})
        elif name == "embedding":
            weight = next(each for each in args if each.is_floating_point())
            self.seen.looked_up |= self.coded.read(weight).keys()
        return func(*args, **(kwargs or {}))

    def note_convolution(self, args, kwargs):
        weight = kwargs.get("weight", args[1] if len(args) > 1 else None)
        groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
        if groups > 1 and weight.shape[1] == 1:
            self.seen.depthwise |= self.coded.read(weight).keys()
        else:
            self.note(weight, summed=list(range(1, weight.ndim)), outputs=[0])

    def note(self, operand, summed, outputs):
        if not isinstance(operand, torch.Tensor) or operand.ndim < 2:
            return
        for name, places in self.coded.read(operand).items():
            product = Product(varying(places, summed), varying(places, outputs))
            self.seen.products.setdefault(name, set()).add(product)


def varying(places: list[np.ndarray], axes: list[int]) -> frozenset[int]:
    """Return the tensor's dimensions whose places change along any of an operand's axes."""
    changing = set()
    for dim, place in enumerate(places):
        for axis in axes:
            before, after = (
                np.take(place, range(*ends), axis=axis) for ends in ((0, place.shape[axis] - 1), (1, place.shape[axis]))
            )
            if np.any((before != after) & (before >= 0) & (after >= 0)):
                changing.add(dim)
    return frozenset(changing)


def watch(
    directory: Path, workspace: Path, model_class: type, inputs: list[dict[str, torch.Tensor]], seed: int = 0
) -> Seen:
    """Run a checkpoint's model with coded weights, and give the products of its tensors."""
    coded = Coded(directory, workspace / "coded", seed)
    options = {"experts_implementation": "eager"} if "experts" in json.dumps(sorted(coded.names)) else {}
    model = model_class.from_pretrained(workspace / "coded", attn_implementation="eager", **options).eval()
    recorder = Recorder(coded)
    with torch.no_grad(), recorder:
        for each in inputs:
            model(**each)
    return recorder.seen


def product_of(axes: Sequence[str]) -> Product:
    """Return the product that a layout's words describe."""
    summed = frozenset(dim for dim, word in enumerate(axes) if word in ("in", "kernel"))
    return Product(summed, frozenset(dim for dim, word in enumerate(axes) if word == "out"))
