"""The order inside a block, and tuning for the error of its output."""

import copy
import types

import pytest
import torch
from support.causal_models import causal_model, token_batches

import masksmith as ms
from masksmith.model_pruning import groups
from masksmith.model_pruning.block_step import BlockStep

LLAMA = [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"],
         ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]  # fmt: skip


@pytest.fixture
def found(monkeypatch):
    """Names in the groups of each block, as they are found."""
    blocks, original = [], groups.groups_of

    def groups_of(step, inputs, weights):
        result = original(step, inputs, weights)
        blocks.append([[weight.name.removeprefix(f"{step.name}.") for weight in group] for group in result])
        return result

    monkeypatch.setattr("masksmith.model_pruning.block_run.groups_of", groups_of)
    return blocks


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", [[f"{name}.weight" for name in group] for group in LLAMA]),
        ("gpt2", [["attn.c_attn.weight"], ["attn.c_proj.weight"], ["mlp.c_fc.weight"], ["mlp.c_proj.weight"]]),
        (
            "mixtral",
            [[f"{name}.weight" for name in group] for group in LLAMA[:2]]
            + [["mlp.experts.gate_up_proj"], ["mlp.experts.down_proj"]],
        ),
    ],
)
def test_groups_are_weights_of_the_same_inputs_in_the_order_of_their_products(found, kind, expected):
    model = causal_model(kind)
    ms.prune(model, token_batches(), "2:4", update=None, order="sequential", few_tokens="without data")
    assert found == [expected, expected]


def test_experts_of_a_kind_are_one_group(found):
    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = torch.nn.ModuleList(torch.nn.ModuleDict(
                {name: torch.nn.Linear(16, 16) for name in ("gate", "up", "down")}) for _ in range(3))  # fmt: skip

        def forward(self, inputs):
            parts = inputs.chunk(2)  # the last expert gets nothing
            return inputs + torch.cat([expert["down"](torch.relu(expert["gate"](part)) * expert["up"](part))
                                       for expert, part in zip(self.experts, parts, strict=False)])  # fmt: skip

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList([Experts(), Experts()])

        def forward(self, inputs):
            return self.blocks[1](self.blocks[0](inputs))

    torch.manual_seed(0)
    ms.prune(Model(), [torch.randn(8, 16, 16)], "2:4", update=None, order="sequential", few_tokens="without data")
    first, second = found[0]
    assert set(first) == {f"experts.{number}.{name}.weight" for number in range(3) for name in ("gate", "up")}
    assert set(second) == {f"experts.{number}.down.weight" for number in range(3)}


def inputs_of(block, path, hidden, call):
    """The inputs of a layer of a block, by a plain hook."""
    rows = []
    hook = block.get_submodule(path).register_forward_pre_hook(
        lambda module, arguments: rows.append(arguments[0].reshape(-1, arguments[0].shape[-1]).double())
    )
    with torch.no_grad():
        for each in hidden:
            call(block, each)
    hook.remove()
    return torch.cat(rows)


def test_each_groups_statistics_come_from_the_pruned_groups_before_it():
    model, batches = causal_model("llama"), token_batches()
    expected, name = copy.deepcopy(model).eval(), "model.layers.0."
    block = expected.model.layers[0]
    for group in LLAMA:
        rows = {path: block_inputs(expected, path, batches) for path in group}
        for path, each in rows.items():
            gram, weight = each.T @ each, block.get_submodule(path).weight
            mask = ms.solve(ms.wanda(weight.detach(), gram.diagonal().sqrt()), "2:4").mask
            weight.data.copy_(ms.reconstruct(weight.detach(), mask, gram, tolerance=1e-6).weight)
    ms.prune(
        model, batches, "2:4", update="reconstruct", update_options={"tolerance": 1e-6}, order="sequential",
        layers=f"{name}*", tune_steps=0,
    )  # fmt: skip
    for path in [path for group in LLAMA for path in group]:
        ours, theirs = model.get_submodule(name + path).weight, block.get_submodule(path).weight
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4, msg=path)


def block_inputs(model, path, batches):
    def call(block, batch):
        model(**batch, use_cache=False)

    return inputs_of(model.model.layers[0], path, batches, call)


def test_tuning_lowers_the_error_and_keeps_masks_and_modes():
    plain, tuned = causal_model("llama"), causal_model("llama")
    batches = token_batches(padded=True)
    before = ms.prune(plain, batches, "2:4", update="reconstruct", tune_steps=0)
    report = ms.prune(tuned, batches, "2:4", update="reconstruct", tune_steps=40)
    for one, other in zip(before.blocks, report.blocks, strict=True):
        assert other.tuning.error_after < 0.9 * other.tuning.error_before
        assert other.error_after == pytest.approx(other.tuning.error_after, rel=1e-6)
        assert one.tuning is None
    assert report.blocks[0].tuning.error_before == pytest.approx(before.blocks[0].error_after, rel=1e-6)
    for name, mask in report.masks.items():
        weight = tuned.get_parameter(name)
        assert not bool(weight[~mask].any()), name
        assert weight.requires_grad
        assert weight.grad is None
    assert report.as_dict()["blocks"][0]["tuning"]["steps"] == 40


def test_tuning_that_raises_the_error_is_taken_back():
    plain, tuned = causal_model("llama"), causal_model("llama")
    ms.prune(plain, token_batches(), "2:4", update="reconstruct", layers="model.layers.0.*", tune_steps=0)
    report = ms.prune(
        tuned, token_batches(), "2:4", update="reconstruct", layers="model.layers.0.*", tune_steps=2, tune_rate=50.0
    )
    assert report.blocks[0].tuning.error_after == report.blocks[0].tuning.error_before
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), tuned.parameters(), strict=True))


def block_step(token_mask=None):
    blocks = types.SimpleNamespace(name=lambda number: "block", modules=[torch.nn.Identity()])
    return BlockStep(blocks, 0, types.SimpleNamespace(token_masks=[token_mask]), 1)


def test_every_token_counts_the_same_whatever_its_norm():
    target = torch.tensor([[[1e4, 0.0], [0.0, 2.0], [1.0, 0.0]]])
    output = torch.tensor([[[1.1e4, 0.0], [0.0, 2.0], [1.0, 0.5]]])
    torch.testing.assert_close(
        block_step().token_errors(0, [output], [target]), torch.tensor([0.01, 0.0, 0.25]).double()
    )
    kept = torch.tensor([[True, True, False]])
    assert block_step(kept).token_errors(0, [output], [target]).tolist() == pytest.approx([0.01, 0.0])


@pytest.mark.parametrize(("targets", "smallest"), [([0, 2, 2], 4e-3), ([0, 0, 3], 3e-3), ([0, 0, 0], 1.0)])
def test_an_error_is_not_divided_by_the_norm_of_a_silent_token(targets, smallest):
    target = torch.tensor(targets)[None, :, None].float()
    errors = block_step().token_errors(0, [target + torch.tensor([0.1, 0.0, 0.0])[None, :, None]], [target])
    assert errors.tolist() == pytest.approx([0.01 / smallest, 0, 0], rel=1e-5)


def test_tuning_lowers_the_error_of_usual_tokens_beside_one_of_a_huge_norm():
    model, inputs = causal_model("llama"), token_batches()
    with torch.no_grad():
        model.model.embed_tokens.weight[int(inputs[0]["input_ids"][0, 0])] *= 1e3
    report = ms.prune(model, inputs, "2:4", update="reconstruct", tune_steps=40, layers="model.layers.0.*")
    tuning = report.blocks[0].tuning
    assert tuning.error_after < 0.7 * tuning.error_before


@pytest.mark.parametrize(("update", "steps"), [("reconstruct", 128), (None, 0)])
def test_weights_are_tuned_after_an_update_unless_the_caller_says_otherwise(update, steps):
    by_default = ms.prune(causal_model("llama"), token_batches(), "2:4", update=update, layers="model.layers.0.*")
    given = ms.prune(
        causal_model("llama"), token_batches(), "2:4", update=update, layers="model.layers.0.*", tune_steps=steps
    )
    tuning = by_default.blocks[0].tuning
    assert (0 if tuning is None else tuning.steps) == steps
    assert by_default.blocks[0].error_after == given.blocks[0].error_after


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"order": "reversed"}, "order='reversed' is not one of: 'together', 'sequential'"),
        ({"tune_steps": -1}, "tune_steps=-1 must be a whole number, at least 0"),
        ({"tune_steps": 2.5}, "tune_steps=2.5 must be a whole number, at least 0"),
        ({"tune_rate": 0.0}, "tune_rate=0.0 must be positive and finite"),
    ],
)
def test_options_that_do_not_exist(options, match):
    with pytest.raises(ms.PruningError, match=match):
        ms.prune(causal_model("llama"), token_batches(), "2:4", **options)
