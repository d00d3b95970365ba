"""Rows of padding enter no statistic, in whatever order a block's products have the tokens."""

import pytest
import torch

import masksmith as ms

WIDTH = 16
LENGTHS = (32, 20)


class Attention(torch.nn.Module):
    """Attention of torch, which multiplies its weights with inputs `[tokens, sequences, in]`."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(WIDTH, 2, bias=False, batch_first=True)
        self.up = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs, is_padding):
        inputs = inputs + self.attention(inputs, inputs, inputs, key_padding_mask=is_padding, need_weights=False)[0]
        return inputs + torch.relu(self.up(inputs))


class TokensFirst(torch.nn.Module):
    """A linear layer on `[tokens * sequences, in]`."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs, is_padding):
        rows = inputs.transpose(0, 1).reshape(-1, WIDTH)
        return inputs + torch.relu(self.layer(rows)).reshape(*inputs.shape[1::-1], WIDTH).transpose(0, 1)


class Mixing(torch.nn.Module):
    """A linear layer on the mean of all tokens, also of those that are padding."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs, is_padding):
        return inputs + self.layer(inputs + inputs.mean(1, keepdim=True))


class Positions(TokensFirst):
    """A linear layer on numbers that depend on the position alone."""

    def forward(self, inputs, is_padding):
        positions = torch.arange(inputs.shape[1] * inputs.shape[0] * WIDTH).reshape(inputs.shape)
        return inputs + super().forward(torch.sin(positions), None)


class Reversed(TokensFirst):
    """A linear layer on the tokens in the opposite order."""

    def forward(self, inputs, is_padding):
        return inputs + torch.relu(self.layer(inputs.flip(0, 1))).flip(0, 1)


class PaddingOfZeros(TokensFirst):
    """The same, of a block that sets padding to 0 itself."""

    def forward(self, inputs, is_padding):
        return super().forward(inputs if is_padding is None else inputs.masked_fill(is_padding[..., None], 0), None)


class Model(torch.nn.Module):
    """Two blocks of a class."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([kind(), kind()])

    def forward(self, inputs, attention_mask=None):
        for block in self.blocks:
            inputs = block(inputs, None if attention_mask is None else attention_mask == 0)
        return inputs


def sequences():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, length, WIDTH, generator=generator) for length in LENGTHS]


def padded(value):
    inputs, mask = torch.full((len(LENGTHS), max(LENGTHS), WIDTH), value), torch.zeros(len(LENGTHS), max(LENGTHS))
    for number, sequence in enumerate(sequences()):
        inputs[number, : sequence.shape[1]], mask[number, : sequence.shape[1]] = sequence[0], 1
    return {"inputs": inputs, "attention_mask": mask}


def one_sequence():
    """A padded batch whose mask is the same in both orders."""
    mask = torch.ones(1, LENGTHS[0])
    mask[0, 8:] = 0
    return {"inputs": sequences()[0], "attention_mask": mask}


@pytest.mark.parametrize("order", ["together", "sequential"])
@pytest.mark.parametrize("value", [0.0, 1000.0])
@pytest.mark.parametrize("kind", [Attention, TokensFirst, PaddingOfZeros])
def test_blocks_may_have_the_tokens_first(kind, value, order):
    options = {"update": "reconstruct", "tune_steps": 0, "order": order, "min_tokens": 1}
    model, expected = Model(kind), Model(kind)
    report = ms.prune(model, [one_sequence(), padded(value)], "2:4", **options)
    ms.prune(expected, [one_sequence()["inputs"][:, :8], *sequences()], "2:4", **options)
    for name, parameter in expected.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, rtol=1e-3, atol=1e-4, msg=name)
    assert {each for block in report.blocks for weight in block.weights for each in weight.tokens} == {8 + sum(LENGTHS)}


@pytest.mark.parametrize("kind", [Mixing, Positions, Reversed])
def test_rows_that_depend_on_padding_or_have_another_order_are_refused(kind):
    match = r"blocks\.0\.layer\.weight: its inputs at tokens depend on padding, or are in an order that is not known"
    with pytest.raises(ms.PruningError, match=match):
        ms.prune(Model(kind), [padded(0.0)], "2:4", update=None, min_tokens=1)
    assert ms.prune(Model(kind), sequences(), "2:4", update=None, min_tokens=1).masks
