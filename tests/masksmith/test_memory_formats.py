"""Weights that functions return have the memory format of the weight that they are given."""

import torch

import masksmith as ms
from masksmith import adapters


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_pruned_and_updated_weights_stay_channels_last():
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(8, 8, 3, 3, generator=generator)
    inputs = torch.randn(200, 72, generator=generator).double()
    weight, gram = plain.to(memory_format=torch.channels_last), inputs.T @ inputs
    mask = ms.solve(weight.abs(), "2:4").mask
    for compute in (
        lambda w: ms.solve(w.abs(), "2:4", weight=w).pruned,
        lambda w: ms.reconstruct(w, mask, gram).weight,
        lambda w: ms.admm(w, gram, "2:4").weight,
        lambda w: adapters.dense_state({"w": w}, {"w": mask})["w"],
    ):
        assert is_channels_last(compute(weight))
        assert compute(plain).is_contiguous()
        assert torch.equal(compute(weight), compute(plain))
