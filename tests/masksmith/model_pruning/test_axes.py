"""Axes that names and shapes do not show are those along which the first batch multiplies."""

import pytest
import torch

import masksmith as ms


class Block(torch.nn.Module):
    """A linear layer, and a parameter that is used in a way of its own."""

    def __init__(self, use, *shape):
        super().__init__()
        self.layer, self.use = torch.nn.Linear(16, 16), use
        self.extra = torch.nn.Parameter(torch.randn(shape) / 4)

    def forward(self, inputs):
        return self.layer(inputs) + self.use(inputs, self.extra)


def groups(inputs, extra):
    """Multiply each half of the inputs with a matrix of its own, as a grouped linear layer does."""
    halves = inputs.reshape(-1, 2, 8).transpose(0, 1)
    return torch.bmm(halves, extra).transpose(0, 1).reshape(inputs.shape)


def prune(use, *shape, layers=None, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(Block(use, *shape), Block(use, *shape))
    batches = (torch.randn(4, 32, 16) for _ in range(2))
    return ms.prune(model, batches, "2:4", update=None, tune_steps=0, layers=layers, **options)


OBSERVED = {
    "in out": ((16, 16), lambda inputs, extra: inputs @ extra),
    "out in": ((16, 16), lambda inputs, extra: inputs @ extra.T),
    "in stack out": ((16, 2, 8), lambda inputs, extra: torch.einsum("bti,ihd->bthd", inputs, extra).flatten(2)),
    "stack out in": ((2, 8, 16), lambda inputs, extra: inputs @ extra.flatten(0, 1).T),
    "stack in out": ((2, 8, 8), groups),
    "stack stack out in": ((2, 2, 4, 16), lambda inputs, extra: inputs @ extra.flatten(0, 2).T),
}


@pytest.mark.parametrize(("axes", "shape", "use"), [(axes, *rest) for axes, rest in OBSERVED.items()], ids=OBSERVED)
def test_a_weight_is_pruned_along_the_inputs_of_its_products(axes, shape, use):
    report = prune(use, *shape)
    assert not report.skipped
    assert torch.equal(
        report.masks["0.extra"],
        prune(use, *shape, layouts=dict.fromkeys(["0.extra", "1.extra"], axes)).masks["0.extra"],
    )
    groups_of_inputs = report.masks["0.extra"].movedim(axes.split().index("in"), -1).unflatten(-1, (-1, 4))
    assert (groups_of_inputs.sum(-1) == 2).all()
    assert list(prune(use, *shape, layers="*.extra").masks) == ["0.extra", "1.extra"]


DENSE = {
    "both axes": ((16, 16), lambda inputs, extra: inputs @ extra + inputs @ extra.T),
    "no product": ((16, 16), lambda inputs, extra: inputs * extra.sum(0)),
    "inputs on two axes": ((2, 8, 16), lambda inputs, extra: inputs @ extra.flatten(0, 1)),
    "a copy": ((2, 16, 8), lambda inputs, extra: torch.einsum("bti,hid->bthd", inputs, extra).flatten(2)),
    "some outputs": ((16, 32), lambda inputs, extra: inputs @ extra[:, :16]),
}


@pytest.mark.parametrize(("shape", "use"), DENSE.values(), ids=DENSE)
def test_a_weight_without_one_such_axis_stays_dense(shape, use):
    report = prune(use, *shape)
    assert list(report.masks) == ["0.layer.weight", "1.layer.weight"]
    assert set(report.skipped) == {"0.extra", "1.extra"}


class Quantised(Block):
    """A block with parameters whose names say what they are."""

    def __init__(self):
        super().__init__(None, 16, 16)
        del self.extra
        self.w_scale, self.qweight = torch.nn.Parameter(torch.ones(16, 1)), torch.nn.Parameter(torch.ones(16, 16))
        self.position_bias = torch.nn.Parameter(torch.zeros(7, 16))

    def forward(self, inputs):
        return self.layer(inputs) * self.w_scale[:, 0] + self.position_bias[0]


def test_parameters_that_names_rule_out_keep_their_reasons():
    model = torch.nn.Sequential(Quantised(), Quantised())
    report = ms.prune(model, [torch.randn(4, 32, 16)], "2:4", update=None, tune_steps=0)
    assert {name: reason for name, reason in report.skipped.items() if name.startswith("0.")} == {
        "0.w_scale": "a scale",
        "0.qweight": "packed by a quantiser, not a weight; dequantise the model first",
        "0.position_bias": "a bias",
    }


def test_a_parameter_that_a_layer_multiplies_is_an_input():
    class Queries(Block):
        def forward(self, inputs):
            return self.layer(inputs) + self.layer(self.extra).sum(0)

    torch.manual_seed(0)
    model = torch.nn.Sequential(Queries(None, 8, 16), Queries(None, 8, 16))
    report = ms.prune(model, [torch.randn(4, 32, 16)], "2:4", update=None, tune_steps=0)
    assert list(report.masks) == ["0.layer.weight", "1.layer.weight"]


def test_a_product_with_a_sparse_matrix_before_the_blocks():
    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            shape, use = OBSERVED["in stack out"]
            self.blocks = torch.nn.ModuleList([Block(use, *shape), Block(use, *shape)])

        def forward(self, inputs):
            inputs = torch.stack([torch.sparse.mm(torch.eye(32).to_sparse(), rows) for rows in inputs])
            for block in self.blocks:
                inputs = block(inputs)
            return inputs

    assert not ms.prune(Graph(), [torch.randn(4, 32, 16)], "2:4", update=None, tune_steps=0).skipped
