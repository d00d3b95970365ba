"""The parts of fused outputs are those that operations use apart; an empty slice is no part."""

import torch

from masksmith_client.checkpoints.tracing.outputs import Outputs


def test_an_empty_slice_of_the_outputs_is_no_part() -> None:
    """As `k[..., 64:]` of one head of 64 dimensions, all of which are rotated."""
    outputs, result = Outputs(), torch.empty(2, 7, 64, device="meta")
    outputs.add("k_proj.weight", result, 64)
    outputs.add_use(result[..., 64:])
    outputs.add_use(result)
    assert outputs.parts() == {}


def test_slices_that_are_used_apart_are_parts() -> None:
    outputs, result = Outputs(), torch.empty(2, 7, 64, device="meta")
    outputs.add("qkv.weight", result, 64)
    outputs.add_use(result[..., :40])
    outputs.add_use(result[..., 40:])
    assert outputs.parts() == {"qkv.weight": (40, 24)}
