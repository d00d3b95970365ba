"""Files of finished blocks."""

from types import SimpleNamespace

import pytest
import torch

import masksmith
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.cli.block_prune.finished_blocks import FinishedBlocks

NAME = "layer.weight"


def written(folder, dtype, value):
    """Write a finished block with a weight of this dtype and an entry of this value; return the files of blocks."""
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(4, 4)}).requires_grad_(False)
    model["layer"].weight[1, 2] = value
    weight = SimpleNamespace(name=NAME, mask=torch.ones(4, 4, dtype=torch.bool).numpy())
    report = SimpleNamespace(weights=[weight], as_dict=lambda: {"weights": [{"name": NAME}]})
    choice = SimpleNamespace(tensors={NAME: SimpleNamespace(dtype=dtype)})
    blocks = FinishedBlocks(folder, choice, PruneMethod.parse("wanda", "admm"), {})
    blocks.write(0, report, model)
    return blocks


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("value", [65_536.0, -1e30])
def test_values_in_the_range_of_the_checkpoint_are_written(tmp_path, dtype, value):
    assert len(written(tmp_path, dtype, value).reports) == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (65_536.0, "reach 65536, which overflows in float16"),
        (-1e30, r"reach 1e\+30, which overflows in float16"),
        (float("nan"), "contain NaN or infinity"),
        (float("-inf"), "contain NaN or infinity"),
    ],
)
def test_values_that_the_checkpoint_cannot_hold_are_refused(tmp_path, value, reason):
    with pytest.raises(masksmith.PruningError, match=rf"layer\.weight: its updated values {reason}"):
        written(tmp_path, "F16", value)
    assert not list(tmp_path.iterdir())
