"""Experts: statistics of each, with the tokens that its router gave it; those with too few are named."""

import pytest
import torch
from support.causal_models import causal_model, token_batches
from torch.nn import functional

import masksmith as ms

NAMES = ("gate_up_proj", "down_proj")


def expert_inputs(model, kind, batches):
    """Return the inputs of both matrices of each expert of the first block, computed from the router's choice."""
    experts, calls = model.eval().model.layers[0].mlp.experts, []
    hook = experts.register_forward_pre_hook(lambda module, arguments: calls.append(arguments))
    inputs = {name: [[] for _ in range(4)] for name in NAMES}
    for batch in batches:
        kept = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool().reshape(-1)
        with torch.no_grad():
            model(**batch, use_cache=False)
        hidden, chosen = calls[0][0].reshape(len(kept), -1), calls[0][1].reshape(len(kept), -1)
        calls.clear()
        for number in range(4):
            rows = hidden[kept & (chosen == number).any(1)]
            inputs["gate_up_proj"][number].append(rows)
            inputs["down_proj"][number].append(_middle(experts, kind, number, rows))
    hook.remove()
    return {name: [torch.cat(rows).double() for rows in each] for name, each in inputs.items()}


@torch.no_grad()
def _middle(experts, kind, number, rows):
    if kind == "mixtral":
        gate, up = (rows @ experts.gate_up_proj[number].T).chunk(2, dim=-1)
        return functional.silu(gate) * up
    both = rows @ experts.gate_up_proj[number] + experts.gate_up_proj_bias[number]
    gate, up = both[:, ::2].clamp(max=7.0), both[:, 1::2].clamp(-7.0, 7.0)
    return (up + 1) * gate * torch.sigmoid(gate * 1.702)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_each_expert_is_pruned_by_its_own_tokens(kind, padded):
    model, batches = causal_model(kind), token_batches(padded)
    inputs = expert_inputs(model, kind, batches)
    dense = {name: getattr(model.model.layers[0].mlp.experts, name).detach().clone() for name in NAMES}
    options = {"tolerance": 1e-6}
    report = ms.prune(model, batches, "2:4", update="reconstruct", update_options=options, min_tokens=8, tune_steps=0)
    weights = {weight.name: weight for weight in report.blocks[0].weights}
    for name in NAMES:
        full_name = f"model.layers.0.mlp.experts.{name}"
        assert list(weights[full_name].tokens) == [len(rows) for rows in inputs[name]]
        for number, rows in enumerate(inputs[name]):
            parts = (each[number] for each in (dense[name], model.get_parameter(full_name), report.masks[full_name]))
            weight, pruned, mask = (each.T.contiguous() if kind == "gpt_oss" else each for each in parts)
            gram = rows.T @ rows
            expected = ms.solve(ms.wanda(weight, gram.diagonal().sqrt()), "2:4").mask
            assert torch.equal(mask, expected)
            updated = ms.reconstruct(weight, expected, gram, tolerance=1e-6).weight
            torch.testing.assert_close(pruned, updated, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_routers_stay_dense_and_are_named(kind):
    model, dense = causal_model(kind), causal_model(kind)
    report = ms.prune(model, token_batches(), "2:4", update=None, min_tokens=8)
    routers = [name for name, reason in report.skipped.items() if reason == "a router, which chooses experts"]
    assert len(routers) == 2
    for name in routers:
        assert torch.equal(model.get_parameter(name), dense.get_parameter(name))
    assert len(report.masks) == 12
    assert not report.without_data


def starved(kind="mixtral", expert=2):
    """Return a model whose first router never chooses an expert."""
    model = causal_model(kind)
    gate = model.model.layers[0].mlp.gate

    def forward(hidden):
        logits = functional.linear(hidden, gate.weight)
        logits[:, expert] = float("-inf")
        values, chosen = logits.softmax(-1).topk(gate.top_k)
        return logits, values / values.sum(-1, keepdim=True), chosen

    gate.forward = forward
    return model


def test_an_expert_without_tokens_is_refused_by_name():
    model = starved()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with pytest.raises(ms.PruningError, match=r"layers.0.mlp.experts.gate_up_proj\[2\]: it got 0 token") as caught:
        ms.prune(model, token_batches(), "2:4", min_tokens=8)
    assert caught.value.name == "model.layers.0.mlp.experts.gate_up_proj[2]"
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("update", [None, "reconstruct", "admm"])
def test_an_expert_without_tokens_is_masked_by_its_weights_alone_on_request(update):
    model = starved()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    options = {"update": update, "few_tokens": "without data", "tune_steps": 2 if update else 0, "threads": 1}
    report = ms.prune(model, token_batches(), "2:4", min_tokens=8, **options)
    names = [f"model.layers.0.mlp.experts.{name}" for name in NAMES]
    assert list(report.without_data) == [f"{name}[2]" for name in names]
    assert all(reason == "it got 0 token(s), fewer than min_tokens=8" for reason in report.without_data.values())
    assert f"without data: {names[0]}[2]: it got 0" in str(report)
    for name in names:
        mask = ms.solve(ms.magnitude(weights[name][2]), "2:4").mask
        assert torch.equal(report.masks[name][2], mask)
        torch.testing.assert_close(model.get_parameter(name)[2], weights[name][2] * mask)
        assert not torch.equal(report.masks[name][1], ms.solve(ms.magnitude(weights[name][1]), "2:4").mask)


def test_the_minimum_counts_tokens_without_padding():
    batches, options = token_batches(padded=True), {"update": None, "layers": "*.layers.0.*"}
    report = ms.prune(causal_model("mixtral"), batches, "2:4", min_tokens=1, **options)
    fewest = min(min(weight.tokens) for weight in report.blocks[0].weights)
    ms.prune(causal_model("mixtral"), batches, "2:4", min_tokens=fewest, **options)
    with pytest.raises(ms.PruningError, match=f"it got {fewest} token"):
        ms.prune(causal_model("mixtral"), batches, "2:4", min_tokens=fewest + 1, **options)


class Routed(torch.nn.Module):
    """A block whose experts are single layers in a list."""

    def __init__(self):
        super().__init__()
        self.router = torch.nn.Linear(16, 3, bias=False)
        self.experts = torch.nn.ModuleList([torch.nn.Linear(16, 16) for _ in range(3)])

    def forward(self, inputs):
        chosen, outputs = self.router(inputs).argmax(-1), inputs.clone()
        for number, expert in enumerate(self.experts):
            outputs[chosen == number] += expert(inputs[chosen == number])
        return outputs


class RoutedModel(torch.nn.Module):
    """Two blocks with lists of experts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = torch.nn.ModuleList([Routed(), Routed()])

    def forward(self, inputs, attention_mask=None):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


def test_experts_in_a_list_have_their_own_tokens():
    model, inputs = RoutedModel(), torch.randn(4, 32, 16)
    chosen = model.blocks[0].router(inputs).argmax(-1).reshape(-1)
    report = ms.prune(model, [inputs], "2:4", update=None, min_tokens=4)
    tokens = {weight.name: weight.tokens for weight in report.blocks[0].weights}
    assert tokens == {f"blocks.0.experts.{n}.weight": (int((chosen == n).sum()),) for n in range(3)}


def test_an_expert_that_a_batch_does_not_reach_is_tuned_with_the_others():
    model, inputs = RoutedModel(), torch.randn(32, 16)
    chosen = model.blocks[0].router(inputs).argmax(-1)
    batches = [inputs[chosen == number][None] for number in range(3)]
    report = ms.prune(model, batches, "2:4", update="reconstruct", min_tokens=1, blocks="blocks", tune_steps=30)
    tuning = report.blocks[0].tuning
    assert tuning.error_after < tuning.error_before


def test_experts_whose_padding_cannot_be_known_are_refused_by_name():
    batch = {"inputs": torch.randn(4, 32, 16), "attention_mask": torch.ones(4, 32)}
    batch["attention_mask"][0, 20:] = 0
    with pytest.raises(ms.PruningError, match=r"blocks.0.experts.0.weight: .*calibrate without padding"):
        ms.prune(RoutedModel(), [batch], "2:4", update=None, min_tokens=4)


def test_experts_whose_module_returns_other_rows_than_it_gets_are_refused_by_name():
    class Flat(Routed):
        def forward(self, inputs):
            return super().forward(inputs).flatten(0, 1)

    class Around(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mixture = Flat()

        def forward(self, inputs):
            return inputs + self.mixture(inputs).reshape(inputs.shape)

    model = RoutedModel()
    model.blocks = torch.nn.ModuleList([Around(), Around()])
    batch = {"inputs": torch.randn(4, 32, 16), "attention_mask": torch.ones(4, 32)}
    batch["attention_mask"][0, 20:] = 0
    with pytest.raises(ms.PruningError, match=r"blocks.0.mixture: its output is not a tensor .*without padding"):
        ms.prune(model, [batch], "2:4", update=None, min_tokens=4)
