"""Files of finished blocks."""

from types import SimpleNamespace

import pytest
import torch

import masksmith
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.cli.block_prune.finished_blocks import FinishedBlocks

NAME = "layer.weight"


@pytest.mark.parametrize(("dtype", "is_refused"), [("F16", True), ("BF16", False), ("F32", False)])
@pytest.mark.parametrize("value", [65_536.0, -1e30])
def test_values_that_overflow_in_the_checkpoint_are_refused(tmp_path, dtype, is_refused, value):
    model = torch.nn.ModuleDict({"layer": torch.nn.Linear(4, 4)}).requires_grad_(False)
    model["layer"].weight[1, 2] = value
    weight = SimpleNamespace(name=NAME, mask=torch.ones(4, 4, dtype=torch.bool).numpy())
    report = SimpleNamespace(weights=[weight], as_dict=lambda: {"weights": [{"name": NAME}]})
    choice = SimpleNamespace(tensors={NAME: SimpleNamespace(dtype=dtype)})
    blocks = FinishedBlocks(tmp_path, choice, PruneMethod.parse("wanda", "admm"), {})
    if not is_refused:
        blocks.write(0, report, model)
        assert len(blocks.reports) == 1
        return
    with pytest.raises(
        masksmith.PruningError, match=r"layer\.weight: its updated values reach .* overflows in float16"
    ):
        blocks.write(0, report, model)
    assert not blocks.reports
    assert not list(tmp_path.iterdir())
