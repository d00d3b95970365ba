"""Methods x (eager, compiled) x (plain, DDP, FSDP2) x in place: the masks and losses of one process without either."""

import json
from functools import cache
from itertools import pairwise

import pytest
import torch
from support.ranks import run_ranks
from support.training_matrix import (
    DECAY,
    FIXED,
    GROW,
    METHODS,
    REFUSED,
    SR_STE,
    STACKS,
    STEPS,
    STRAIGHT,
    THRESHOLDS,
    cells,
    train,
)

# torch.compile creates instances of autograd functions while it traces them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning",
    r"ignore:The \.grad attribute:UserWarning",
    "ignore:.*torch.jit.script_method:DeprecationWarning",  # of inductor's own imports
)
QUICK = [
    (SR_STE, False, "ddp", "eager", "masks first"),
    (FIXED, True, "fsdp2", "eager", "stack first"),
    (DECAY, False, "fsdp2", "eager", "masks first"),
    (THRESHOLDS, False, "fsdp2", "eager", "masks first"),
    (GROW, False, "fsdp2", "eager", "stack first"),
    *((method, in_place, stack, "eager", order) for stack, method, in_place, order in REFUSED),
]


@cache
def expected(method, in_place):
    """What one process without compilation has; masks that change would show a stale one."""
    result = train(method, in_place)
    changes = [not torch.equal(one[name], two[name]) for one, two in pairwise(result["masks"]) for name in one]
    assert any(changes) is not (method == FIXED and in_place), method
    return result


def check(cell, result):
    method, in_place, stack, _, order, *_ = cell
    refusal = REFUSED.get((stack, method, in_place, order))
    assert ("refused" in result) == (refusal is not None), (cell, result.get("refused"))
    if refusal is not None:
        assert refusal in result["refused"]
        return
    single = expected(method, in_place)
    assert result["losses"] == pytest.approx(single["losses"], rel=0, abs=1e-9), cell
    for step, (masks, right) in enumerate(zip(result["masks"], single["masks"], strict=True)):
        for name, mask in right.items():
            assert torch.equal(masks[name], mask), (cell, step, name)
    for name, value in single["state"].items():
        torch.testing.assert_close(result["state"][name], value, rtol=0, atol=1e-9)
        assert torch.equal(result["baked"][name], result["state"][name]), (cell, name)
        assert result["copy"] is None or torch.equal(result["copy"][name], result["state"][name]), (cell, name)


def check_bytes(cell, result, world):
    """Each rank holds the masks of its own shards, also between a forward pass and its backward pass."""
    _, in_place, stack, compiled, order, *_ = cell
    whole = sum(mask.numel() for mask in result["masks"][0].values())
    part = whole // world if stack == "fsdp2" else whole
    assert result["held"] == [part] * STEPS, cell
    if compiled == "eager":
        saved = [whole if order == "masks first" else part] + [part] * (STEPS - 1)
        assert result["saved"] == ([0] * STEPS if in_place else saved), cell


def check_on_ranks(wanted, world, folder):
    (folder / "cells.json").write_text(json.dumps(wanted))
    ranks = run_ranks("support.training_matrix", world, folder)
    for results in ranks:
        for cell, result in zip(wanted, results, strict=True):
            check(cell, result)
            if "refused" not in result:
                check_bytes(cell, result, world)
    return {tuple(cell[:5]): [results[at].get("rows") for results in ranks] for at, cell in enumerate(wanted)}


@pytest.mark.parametrize(("method", "compiled"), [(SR_STE, "blocks"), (STRAIGHT, "whole")])
def test_compiled_training_is_that_of_eager_training(method, compiled):
    check((method, False, "plain", compiled, "masks first"), train(method, False, compiled=compiled))


def test_every_stack_has_the_masks_and_losses_of_one_process(tmp_path):
    rows = check_on_ranks([(*cell, "aot_eager") for cell in QUICK], 2, tmp_path)
    refreshes = 1 + STEPS // 2
    assert rows[SR_STE, False, "ddp", "eager", "masks first"] == [[32] * 2 * refreshes, []], "the first rank requests"
    assert rows[FIXED, True, "fsdp2", "eager", "stack first"] == [[16] * 2 * refreshes] * 2, "each has its own rows"
    assert rows[GROW, False, "fsdp2", "eager", "stack first"] == [[32] * refreshes] * 2, "each has one gathered layer"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("stack", STACKS)
def test_the_full_product(stack, backend, tmp_path):
    wanted = [(method, in_place, stack, compiled, order, backend) for method, in_place, compiled, order in cells(stack)]
    if backend == "inductor":
        wanted = [cell for cell in wanted if cell[3] == "whole" and cell[4] == "masks first"]
    if stack != "plain":
        check_on_ranks(wanted, 2, tmp_path)
        return
    for cell in wanted:
        check(cell, train(*cell))


@pytest.mark.slow
def test_one_process_of_fsdp2(tmp_path):
    wanted = [(method, False, "fsdp2", "eager", "masks first", "aot_eager") for method in METHODS]
    check_on_ranks([*wanted, (FIXED, True, "fsdp2", "eager", "stack first", "aot_eager")], 1, tmp_path)
