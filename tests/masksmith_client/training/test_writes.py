"""What is written to a masked weight reaches the dense one, or is refused at the next step."""

import copy
import gc

import pytest
import torch
import transformers
from support.training_loop import WAITING, perceptron, train

import masksmith as ms
from masksmith_client import InputError
from masksmith_client.training import DensePhases, Sparsifier
from masksmith_client.training.lost_writes import is_initializer

PATTERN = "2:4"
LOST = r"'2.weight' was written to in place.*model.get_parameter\('2.weight'\)"


def llama():
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    return transformers.AutoModel.from_config(config)


def init_weights(module):
    if isinstance(module, torch.nn.Linear):
        torch.nn.init.constant_(module.weight, 3.0)


@pytest.mark.parametrize("name", ["init_weights", "_init_weights", "initialize_weights", "weights_init", "init_params"])
def test_functions_that_initialize_weights_are_known_by_their_names(name):
    assert is_initializer(name)


@pytest.mark.parametrize("name", ["init", "forward", "init_weights_norm", "weights", "train", "initial_weights_of"])
def test_other_functions_read_masked_weights(name):
    assert not is_initializer(name)


def test_a_function_that_initializes_weights_writes_to_the_dense_ones(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    model.apply(init_weights)
    assert bool((model.get_parameter("2.weight") == 3.0).all())
    sparsifier.step()
    assert torch.equal(model[2].weight, 3.0 * sparsifier.masks["2.weight"])


@pytest.mark.parametrize("call", ["init_weights", "apply"])
def test_models_of_transformers_initialize_their_dense_weights(call):
    model, name = llama(), "layers.0.mlp.up_proj.weight"
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    before = model.get_parameter(name).detach().clone()
    for part in (*model.modules(), *model.parameters()):
        part._is_hf_initialized = False
    model.init_weights() if call == "init_weights" else model.apply(model._init_weights)
    assert bool((model.get_parameter(name) != before).all())
    sparsifier.step()


def set_to_three(weight):
    torch.nn.init.constant_(weight, 3.0)


@torch.no_grad()
def clamp(weight):
    weight.clamp_(-0.01, 0.01)


@torch.no_grad()
def write_to_a_view(weight):
    weight[0] = 1.0


@torch.no_grad()
def write_detached(weight):
    weight.detach().add_(1.0)


def xavier(weight):
    torch.nn.init.xavier_uniform_(weight)


WRITES = (set_to_three, clamp, write_to_a_view, write_detached, xavier)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("method", ["sr-ste", "trainable-thresholds"])
def test_a_write_into_masked_values_is_refused_at_the_next_call(model, write, method):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None, method)
    write(model[2].weight)
    with pytest.raises(InputError, match=LOST):
        sparsifier.refresh_now()
    sparsifier.refresh_now()
    write(model[2].weight)
    with pytest.raises(InputError, match=LOST):
        sparsifier.bake()
    write(model.get_parameter("2.weight"))
    sparsifier.bake()
    assert ms.verify(model[2].weight != 0, PATTERN)


def test_a_write_into_masked_values_that_are_still_held_is_refused_once(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    weight = model[2].weight
    clamp(weight)
    with pytest.raises(InputError, match=LOST):
        sparsifier.step()
    sparsifier.step()
    clamp(weight)
    del weight
    with pytest.raises(InputError, match=LOST):
        sparsifier.step()


def test_a_copy_with_lost_writes_is_not_baked(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    average = copy.deepcopy(model)
    with torch.no_grad():
        average[2].weight.mul_(0.9).add_(model[2].weight, alpha=0.1)
    before = average.get_parameter("4.weight").detach().clone()
    with pytest.raises(InputError, match=r"the copy's '2.weight' was written to.*copy.get_parameter\('2.weight'\)"):
        sparsifier.bake(average)
    assert torch.equal(average.get_parameter("4.weight"), before)
    set_to_three(average.get_parameter("2.weight"))
    assert torch.equal(sparsifier.bake(average)[2].weight, 3.0 * sparsifier.masks["2.weight"])
    sparsifier.step()


def test_a_copy_does_not_take_over_a_lost_write(model):
    sparsifier = Sparsifier(model, PATTERN, ms.solve, None)
    set_to_three(model[2].weight)
    sparsifier.bake(copy.deepcopy(model))
    with pytest.raises(InputError, match=LOST):
        sparsifier.step()


def test_writes_reach_weights_of_a_dense_phase_and_weights_masked_in_place():
    for options in ({"schedule": DensePhases(warm_up=5)}, {"in_place": True, "method": "fixed"}):
        model = perceptron()
        sparsifier = Sparsifier(model, PATTERN, ms.solve, None, **options)
        set_to_three(model[2].weight)
        assert bool((model.get_parameter("2.weight") == 3.0).all())
        sparsifier.step()


@pytest.mark.parametrize("layer", [torch.nn.Embedding, torch.nn.EmbeddingBag])
def test_an_embedding_that_renormalises_what_it_looks_up_is_masked_in_place_alone(layer):
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"embedding": layer(16, 16, max_norm=1.0), "linear": torch.nn.Linear(16, 16)})
    options = {"masks": ms.solve, "refresh": None, "method": "fixed", "layers": ["embedding", "linear"]}
    with pytest.raises(InputError, match=r"'embedding.weight' cannot be masked: an embedding with max_norm.*in_place"):
        Sparsifier(model, "50%", **options)
    sparsifier = Sparsifier(model, "50%", in_place=True, **options)
    model["linear"](model["embedding"](torch.arange(4).unsqueeze(0))).sum().backward()
    sparsifier.step()
    assert ms.verify(model["embedding"].weight != 0, "50%")
    sparsifier.bake()


def test_training_and_evaluation_write_to_no_masked_values():
    model = perceptron()
    with Sparsifier(model, PATTERN, ms.solve, WAITING) as sparsifier:
        weight = model[2].weight  # Held during training.
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            train(model, torch.optim.SGD(model.parameters(), 0.1), sparsifier, 2)
            with mode():
                model.eval()(torch.randn(4, model[0].in_features))
            sparsifier.step()
        assert ms.verify(weight != 0, PATTERN)


@pytest.mark.parametrize("method", ["sr-ste", "trainable-thresholds"])
def test_replicas_of_data_parallel_leave_nothing_behind(model, method):
    Sparsifier(model, PATTERN, ms.solve, None, method)
    masking = model[2].weight_masking
    held = model[2].weight  # Watched.
    for _ in range(2):
        replica, replica_of_masking = (each._replicate_for_data_parallel() for each in (model[2], masking))
        replica._modules["weight_masking"] = replica_of_masking
        for original, its_replica in ((model[2], replica), (masking, replica_of_masking)):
            for name, parameter in original._parameters.items():
                setattr(its_replica, name, parameter.clone())  # As torch.nn.parallel.replicate does.
        outputs = replica(torch.randn(2, model[2].in_features, requires_grad=True))
        del replica, replica_of_masking, its_replica, original, outputs
    gc.collect()
    assert [watch() is held for watch in masking.watches.values()] == [True]
