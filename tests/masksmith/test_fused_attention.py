"""Layers that torch computes in one fused operation in evaluation mode: their products are watched all the same."""

import threading

import numpy as np
import pytest
import torch

import masksmith as ms
from masksmith._torch_modes import without_fused_attention

WIDTH = 16


class Model(torch.nn.Module):
    """Layers of an encoder, with or without padding."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2).eval()

    def forward(self, inputs, attention_mask=None):
        return self.encoder(inputs, src_key_padding_mask=None if attention_mask is None else attention_mask == 0)


def batch(is_padded):
    inputs = torch.randn(8, 16, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(8, 16)
    mask[::2, 10:] = 0
    return {"inputs": inputs, "attention_mask": mask} if is_padded else {"inputs": inputs}


def expected_inputs(model, batch, name):
    """The inputs of a layer, as the layers themselves pass them on."""
    rows = []
    layer = model.get_submodule(name)
    with without_fused_attention(), torch.no_grad():
        handle = layer.register_forward_pre_hook(lambda module, arguments: rows.append(arguments[0]))
        model(**batch)
        handle.remove()
    return rows[0].reshape(-1, rows[0].shape[-1]).double().numpy()


@pytest.mark.parametrize("is_padded", [False, True])
def test_layers_inside_of_fused_attention_are_calibrated(is_padded):
    model = Model()
    calibration = ms.calibrate(model, [batch(is_padded)], gather=("norms", "gram"), layers="*")
    assert calibration.skipped == {}
    assert len(calibration) == 6
    assert {calibration[name].samples for name in calibration} == {128}
    rows = expected_inputs(model, batch(is_padded), "encoder.layers.1.linear2")
    gram = calibration["encoder.layers.1.linear2.weight"].gram
    np.testing.assert_allclose(gram, rows.T @ rows, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("is_padded", [False, True])
def test_blocks_with_fused_attention_are_pruned(is_padded):
    report = ms.prune(Model(), [batch(is_padded)], "2:4", update=None)
    tokens = 8 * 16 - (4 * 6 if is_padded else 0)
    assert {weight.tokens for block in report.blocks for weight in block.weights} == {(tokens,)}
    assert [len(block.weights) for block in report.blocks] == [4, 4]
    assert all(block.error_after > 0 for block in report.blocks)


def test_attention_that_is_fused_in_some_calls_only_is_counted_in_all():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(WIDTH, 2, batch_first=True)

        def forward(self, inputs):
            inputs = self.attention(inputs, inputs, inputs, need_weights=False)[0]
            return self.attention(inputs, inputs.flip(1), inputs, need_weights=False)[0]

    calibration = ms.calibrate(Both(), [batch(False)["inputs"]], layers="*")
    assert calibration["attention.out_proj.weight"].samples == 2 * 128


def test_an_output_projection_that_is_never_called_has_no_gradients():
    def loss(model, batch):
        return model(**batch).square().mean()

    calibration = ms.calibrate(Model(), [batch(False)], gather=("gradients",), loss=loss, layers="encoder.layers.0.*")
    assert "without calling the layer" in calibration.skipped["encoder.layers.0.self_attn.out_proj.weight"]


@pytest.mark.parametrize("was_enabled", [False, True])
def test_the_setting_is_restored_when_the_last_thread_leaves(was_enabled):
    before, is_inside, may_leave = torch.backends.mha.get_fastpath_enabled(), threading.Event(), threading.Event()

    def other():
        with without_fused_attention():
            is_inside.set()
            may_leave.wait()

    thread = threading.Thread(target=other)
    try:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
        with without_fused_attention():
            thread.start()
            is_inside.wait()
        assert not torch.backends.mha.get_fastpath_enabled()
        may_leave.set()
        thread.join()
        assert torch.backends.mha.get_fastpath_enabled() == was_enabled
    finally:
        may_leave.set()
        torch.backends.mha.set_fastpath_enabled(before)
