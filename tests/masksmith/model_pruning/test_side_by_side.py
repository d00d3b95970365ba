"""Matrices of a stack that lie side by side, and are multiplied by one product."""

import pytest
import torch

import masksmith as ms
from masksmith.layouts import Layout
from masksmith.model_pruning.products import ProductWatcher
from masksmith.model_pruning.weights import BlockWeight
from masksmith.patterns import parse

ROWS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def matrices_seen(product, axes, *shape):
    """Return the numbers of the matrices that get inputs when `product` is called with a weight of these axes."""
    weight = BlockWeight("heads", torch.nn.Parameter(torch.ones(shape)), Layout.parse(axes), parse("2:4"))
    numbers = []
    with torch.no_grad(), ProductWatcher([weight], lambda weight, matrix, rows: numbers.append((matrix, rows))):
        product(weight.parameter)
    assert all(torch.equal(rows, ROWS) for _, rows in numbers)
    return [number for number, _ in numbers]


@pytest.mark.parametrize(
    ("axes", "shape", "product"),
    [
        ("in stack out", (4, 3, 2), lambda heads: ROWS @ heads.flatten(1)),
        ("in stack out", (4, 3, 2), lambda heads: torch.einsum("th,hnd->tnd", ROWS, heads)),
        ("stack out in", (3, 2, 4), lambda heads: ROWS @ heads.flatten(0, 1).T),
        ("out stack in", (2, 3, 4), lambda heads: torch.nn.functional.linear(ROWS, heads.flatten(0, 1))),
        ("stack stack out in", (3, 1, 2, 4), lambda heads: heads.flatten(0, 2) @ ROWS.T),
        ("in stack out", (4, 3, 1), lambda heads: ROWS @ heads.flatten(1)),
    ],
)
def test_one_product_of_all_matrices_gives_each_its_inputs(axes, shape, product):
    assert matrices_seen(product, axes, *shape) == [0, 1, 2]


def test_some_matrices_of_a_stack():
    assert matrices_seen(lambda heads: ROWS @ heads[:, 1:].flatten(1), "in stack out", 4, 3, 2) == [1, 2]
    assert matrices_seen(lambda heads: ROWS @ heads[:, 1], "in stack out", 4, 3, 2) == [1]
    assert matrices_seen(lambda heads: ROWS @ heads[:, 1], "in stack out", 4, 3, 1) == [1]


@pytest.mark.parametrize("outputs", [slice(0, 3), slice(1, 5), slice(1, 3)])
def test_a_product_that_cuts_a_matrix_is_refused(outputs):
    with pytest.raises(ms.PruningError, match="it is multiplied in parts"):
        matrices_seen(lambda heads: ROWS @ heads.flatten(1)[:, outputs], "in stack out", 4, 3, 2)


class Heads(torch.nn.Module):
    """A block with a parameter `[in, heads, out]`, as in XLNet."""

    shape, product = (16, 4, 4), "bti,ihd->bthd"

    def __init__(self):
        super().__init__()
        self.heads = torch.nn.Parameter(torch.randn(self.shape))

    def forward(self, inputs):
        return inputs + torch.einsum(self.product, inputs, self.heads).flatten(2)


class HeadsFirst(Heads):
    """The same with a parameter `[heads, out, in]`, which may be a stack of experts."""

    shape, product = (4, 4, 16), "bti,hdi->bthd"


class Flat(torch.nn.Module):
    """The same block as `Heads` with a linear layer."""

    def __init__(self, heads):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16, bias=False)
        self.layer.weight.data = heads.detach().flatten(1).T.contiguous()

    def forward(self, inputs):
        return inputs + self.layer(inputs)


class Model(torch.nn.Module):
    """Two blocks of a class."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([kind(), kind()])

    def forward(self, inputs, attention_mask=None):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def batches(padding=0):
    """Return two batches, with `padding` tokens of padding."""
    torch.manual_seed(1)
    mask = torch.ones(4, 32, dtype=torch.int64)
    mask[0, :padding] = 0
    return [{"inputs": torch.randn(4, 32, 16), "attention_mask": mask} for _ in range(2)]


def layouts(axes):
    return {f"blocks.{number}.heads": axes for number in range(2)}


@pytest.mark.parametrize("padding", [0, 4])
def test_heads_are_pruned_as_the_rows_of_a_linear_layer(padding):
    model = Model(Heads)
    flat = Model(lambda: None)
    flat.blocks = torch.nn.ModuleList([Flat(block.heads) for block in model.blocks])
    options = {"update": "reconstruct", "update_options": {"tolerance": 1e-6}, "tune_steps": 0}
    report = ms.prune(model, batches(padding), "2:4", layouts=layouts("in stack out"), **options)
    expected = ms.prune(flat, batches(padding), "2:4", **options)
    assert not report.skipped
    for number in range(2):
        mask = report.masks[f"blocks.{number}.heads"].flatten(1).T
        assert torch.equal(mask, expected.masks[f"blocks.{number}.layer.weight"])
        pruned, linear = model.blocks[number].heads.flatten(1).T, flat.blocks[number].layer.weight
        torch.testing.assert_close(pruned, linear, rtol=1e-3, atol=1e-5)


def test_a_stack_that_belongs_to_the_block_itself_needs_batches_without_padding():
    options = {"layouts": layouts("stack out in"), "update": None}
    assert len(ms.prune(Model(HeadsFirst), batches(), "2:4", **options).masks) == 2
    with pytest.raises(ms.PruningError, match="its rows of padding cannot be identified; calibrate without padding"):
        ms.prune(Model(HeadsFirst), batches(padding=4), "2:4", **options)
