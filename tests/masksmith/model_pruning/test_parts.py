"""Weights that are parts of a parameter: their inputs are those of the products that contain them as a whole."""

import pytest
import torch

import masksmith as ms
from masksmith.layouts import Layout
from masksmith.model_pruning import Part, find_blocks
from masksmith.model_pruning.products import ProductWatcher
from masksmith.model_pruning.weights import BlockWeight, weights_of
from masksmith.patterns import TensorPatterns, parse

PARAMETER = torch.nn.Parameter(torch.arange(2 * 6 * 4, dtype=torch.float32).reshape(2, 6, 4), requires_grad=False)
"""Two matrices of 6 outputs and 4 inputs."""
ROWS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def part(name, axes, *place):
    return BlockWeight(name, PARAMETER, Layout.parse(axes), parse("2:4"), Part("fused", *place))


FIRST = part("first", "out in", (3, 4), (4, 1), 24)
EVERY_SECOND = part("every second", "in out", (4, 3), (1, 8), 28)
WHOLE = BlockWeight("whole", PARAMETER, Layout.parse("stack out in"), parse("2:4"))
BOTH = part("both", "stack out in", (2, 2, 4), (24, 4, 1), 0)


def seen(product, *weights):
    inputs = []
    with ProductWatcher(weights, lambda weight, matrix, rows: inputs.append((weight.name, matrix, rows))):
        product()
    return inputs


WHOLE_PRODUCTS = {
    "linear": lambda matrix: torch.nn.functional.linear(ROWS, matrix),
    "matmul": lambda matrix: ROWS @ matrix.t(),
    "weight first": lambda matrix: matrix @ ROWS.t(),
    "addmm": lambda matrix: torch.addmm(torch.zeros(6), ROWS, matrix.t()),
}
OTHER_PRODUCTS = {
    "some outputs": lambda: ROWS @ PARAMETER[1, :2].t(),
    "another axis": lambda: torch.randn(5, 6) @ PARAMETER[1],
    "some inputs": lambda: ROWS[:, :2] @ PARAMETER[1, :, :2].t(),
}


@pytest.mark.parametrize("multiply", WHOLE_PRODUCTS.values(), ids=WHOLE_PRODUCTS)
def test_all_parts_of_a_matrix_get_its_inputs(multiply):
    found = seen(lambda: multiply(PARAMETER[1]), FIRST, EVERY_SECOND, BOTH)
    assert [(name, matrix) for name, matrix, _ in found] == [("first", 0), ("every second", 0), ("both", 1)]
    for _, _, rows in found:
        assert torch.equal(rows, ROWS)
    assert [(name, matrix) for name, matrix, _ in seen(lambda: multiply(PARAMETER[0]), FIRST, BOTH)] == [("both", 0)]


def test_products_of_several_matrices_at_once():
    rows = torch.stack([ROWS, 2 * ROWS])
    found = seen(lambda: rows @ PARAMETER.mT, FIRST, BOTH)
    assert [(name, matrix) for name, matrix, _ in found] == [("first", 0), ("both", 0), ("both", 1)]
    assert [torch.equal(each, factor * ROWS) for (*_, each), factor in zip(found, (2, 1, 2), strict=True)] == [True] * 3


@pytest.mark.parametrize("multiply", OTHER_PRODUCTS.values(), ids=OTHER_PRODUCTS)
def test_a_part_that_is_multiplied_in_pieces_or_along_another_axis_is_refused(multiply):
    with pytest.raises(ms.PruningError, match="its products do not sum over the axis 'in'") as caught:
        seen(multiply, FIRST)
    assert caught.value.name == "first"


def test_parts_that_a_product_does_not_contain_get_nothing():
    assert seen(lambda: ROWS @ PARAMETER[1, 3:].t(), FIRST) == []


def test_a_part_is_written_into_its_parameter_alone():
    whole = PARAMETER.detach().clone()
    EVERY_SECOND.part.view(whole).zero_()
    assert whole[1, 1::2].abs().sum() == 0
    assert torch.equal(whole[0], PARAMETER[0])
    assert torch.equal(whole[1, 0::2], PARAMETER[1, 0::2])
    with pytest.raises(ValueError, match="is not contiguous"):
        FIRST.part.view(PARAMETER.mT)


@pytest.mark.parametrize(
    "place", [Part("other", (3, 4), (4, 1), 0), Part("0.weight", (3, 4), (4, 1), 53), Part("0.weight", (3,), (4, 1), 0)]
)
def test_a_part_outside_the_model_is_refused_by_name(place):
    layers = [torch.nn.Sequential(torch.nn.Linear(8, 8)) for _ in range(2)]
    model = torch.nn.Sequential(*layers)
    place = Part(place.parameter.replace("0.", "0.0."), place.shape, place.strides, place.offset)
    with pytest.raises(ms.PruningError, match="it is not within a parameter") as caught:
        weights_of(model, find_blocks(model), TensorPatterns.of("2:4"), parts={"mine": place})
    assert caught.value.name == "mine"


def test_a_part_is_chosen_instead_of_its_parameter():
    model = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(8, 8)) for _ in range(2)])
    place = Part("0.0.weight", (4, 8), (8, 1), 32)
    chosen = weights_of(
        model, find_blocks(model), TensorPatterns.of("2:4"), parts={"mine": place}, layouts={"mine": "out in"}
    )
    assert [[weight.name for weight in block] for block in chosen.by_block] == [["mine"], ["1.0.weight"]]
    assert torch.equal(chosen.by_block[0][0].tensor, model[0][0].weight[4:])


def test_grouped_products_with_the_weight_first_have_the_inputs_of_each_group():
    offsets = torch.tensor([2, 5], dtype=torch.int32)
    found = seen(lambda: torch._grouped_mm(PARAMETER, ROWS.t(), offs=offsets), WHOLE)
    assert [matrix for _, matrix, _ in found] == [0, 1]
    assert torch.equal(found[0][2], ROWS[:2])
    assert torch.equal(found[1][2], ROWS[2:])
    with pytest.raises(ms.PruningError, match="contain only some of its inputs"):
        seen(lambda: torch._grouped_mm(ROWS, PARAMETER[0].t(), offs=torch.tensor([1, 4], dtype=torch.int32)), WHOLE)
