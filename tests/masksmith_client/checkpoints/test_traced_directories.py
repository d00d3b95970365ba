"""Traces of checkpoints as they come: other names, other axes, code of their own, configs that say nothing."""

import importlib.util
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file
from support.matrix_products import product_of, watch
from support.tiny_models import LLAMA, MODELS, TinyModel, shapes_in

from masksmith.layouts import Candidate, Layout, with_layouts
from masksmith_client.checkpoints.trace import Trace
from masksmith_client.checkpoints.traced import BUFFER, has_matrices_of_config_model, trace, traced_candidates
from masksmith_client.checkpoints.tracing.models import UntracedError, load_config

LLAMA_TINY = next(model for model in MODELS if model.name == "llama")
QWEN3_VL_MOE = TinyModel(
    "qwen3_vl_moe",
    "Qwen3VLMoeForConditionalGeneration",
    {
        "text_config": {
            **next(model.settings for model in MODELS if model.name == "qwen3_moe"),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 4,
            "out_hidden_size": 32,
        },
    },
    masked="",
)
JETMOE = TinyModel(
    "jetmoe",
    "JetMoeForCausalLM",
    {
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "kv_channels": 8,
        "intermediate_size": 48,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    masked="",
)
MINIMAX = TinyModel(
    "minimax",
    "MiniMaxForCausalLM",
    {
        **next(model.settings for model in MODELS if model.name == "mixtral"),
        "layer_types": ["linear_attention", "full_attention"],
        "block_size": 8,
    },
    masked="",
)


def rewrite(directory: Path, change) -> None:
    (file,) = directory.glob("*.safetensors")
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in change(load_file(file))}, file, {"format": "pt"})


def edit_config(directory: Path, **settings) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.fixture
def llama(tmp_path):
    LLAMA_TINY.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("axes", ["stack out in", "stack in out"])
def test_experts_are_read_as_loading_arranges_them(tmp_path, axes):
    QWEN3_VL_MOE.save(tmp_path / "model")
    is_expert = re.compile(r"experts\.(gate_up|down)_proj").search
    if axes == "stack in out":
        rewrite(
            tmp_path / "model",
            lambda tensors: [
                (name, each.transpose(0, 2, 1) if is_expert(name) else each) for name, each in tensors.items()
            ],
        )
    shapes = shapes_in(tmp_path / "model")
    seen = watch(tmp_path / "model", tmp_path, QWEN3_VL_MOE.model_class, [QWEN3_VL_MOE.batch(0)])
    layouts = trace(tmp_path / "model", shapes).layouts
    config = json.loads((tmp_path / "model/config.json").read_text())
    by_names = with_layouts([Candidate(name, shape, "F32") for name, shape in shapes.items()], config=config)
    experts = list(filter(is_expert, shapes))
    assert len(experts) == 4
    for name in experts:
        assert str(layouts[name]) == axes
        assert {product_of(layouts[name].axes)} == seen.products[name]
    assert {str(each.layout) for each in by_names if is_expert(each.name)} == {axes}


def test_a_model_that_needs_numbers_is_run_smaller(tmp_path):
    JETMOE.save(tmp_path / "model")
    shapes = shapes_in(tmp_path / "model")
    seen = watch(tmp_path / "model", tmp_path, JETMOE.model_class, [JETMOE.batch(seed) for seed in range(3)])
    traced = trace(tmp_path / "model", shapes)
    assert [note for note in traced.notes if note.startswith("a smaller model was run: ")] == traced.notes != []
    assert traced.layouts.keys() == seen.products.keys()
    assert {name: {product_of(layout.axes)} for name, layout in traced.layouts.items()} == seen.products


@pytest.mark.parametrize(
    ("name", "tensor", "parts"),
    [
        ("phi3", "model.layers.1.self_attn.qkv_proj.weight", (32, 16, 16)),
        ("phi3", "model.layers.1.mlp.gate_up_proj.weight", (48, 48)),
        ("gpt2", "transformer.h.1.attn.c_attn.weight", (32, 32, 32)),
        ("deepseek_v3", "model.layers.1.self_attn.kv_a_proj_with_mqa.weight", (16, 8)),
        ("deepseek_v3", "model.layers.1.self_attn.kv_b_proj.weight", ()),
        ("mamba", "backbone.layers.1.mixer.x_proj.weight", (4, 8, 8)),
        ("gpt_neox", "gpt_neox.layers.1.attention.query_key_value.weight", ()),
        ("gpt_oss", "model.layers.1.mlp.experts.gate_up_proj", ()),
        ("llama", "model.layers.1.self_attn.k_proj.weight", ()),
    ],
)
def test_fused_matrices_are_told_apart_where_they_follow_each_other(tmp_path, name, tensor, parts):
    next(model for model in MODELS if model.name == name).save(tmp_path / "model")
    assert trace(tmp_path / "model", shapes_in(tmp_path / "model")).layouts[tensor].out_parts == parts


@pytest.mark.parametrize("has_prefix", [True, False])
def test_a_checkpoint_may_be_of_the_model_without_its_head(llama, has_prefix):
    if has_prefix:
        edit_config(llama, architectures=["LlamaModel"])
    else:
        rewrite(
            llama,
            lambda tensors: [
                (name.removeprefix("model."), each) for name, each in tensors.items() if name != "lm_head.weight"
            ],
        )
    shapes = shapes_in(llama)
    layouts = trace(llama, shapes).layouts
    matrices = {name for name in shapes if re.fullmatch(LLAMA.replace(r"model\.", "(model.)?", 1), name)}
    assert layouts.keys() - {"lm_head.weight"} == matrices != set()


def test_a_config_that_contradicts_a_tensor_gives_it_no_layout(llama):
    shapes = {**shapes_in(llama), "model.layers.0.mlp.up_proj.weight": (40, 32)}
    traced = trace(llama, shapes)
    assert "model.layers.0.mlp.up_proj.weight" not in traced.layouts
    assert "model.layers.1.mlp.up_proj.weight" in traced.layouts
    (note,) = traced.notes
    assert note == (
        "'model.layers.0.mlp.up_proj.weight' has the shape [40, 32], but config.json says [48, 32], "
        "so names and shapes decide"
    )


CODE = """
import pathlib
import transformers
pathlib.Path({marker!r}).touch()
class Config(transformers.LlamaConfig):
    model_type = "homemade"
class Model(transformers.LlamaForCausalLM):
    config_class = Config
"""


@pytest.mark.parametrize("trusted", [True, False])
def test_code_that_a_checkpoint_brings_runs_only_if_it_is_trusted(llama, tmp_path, monkeypatch, trusted):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    marker = tmp_path / "ran"
    (llama / "homemade.py").write_text(CODE.format(marker=str(marker)))
    auto_map = {"AutoConfig": "homemade.Config", "AutoModel": "homemade.Model"}
    edit_config(llama, model_type="homemade", architectures=["Model"], auto_map=auto_map)
    shapes = shapes_in(llama)
    traced = trace(llama, shapes, trust_remote_code=trusted)
    assert marker.exists() == trusted
    if trusted:
        assert {name for name in shapes if re.fullmatch(LLAMA, name)} < traced.layouts.keys()
    else:
        (note,) = traced.notes
        assert traced == Trace(notes=[note])
        assert "'homemade'" in note
        assert "is not run unless remote code is trusted" in note
        assert note.endswith("so names and shapes decide")


@pytest.mark.parametrize("trusted", [True, False])
def test_code_of_another_repository_is_not_downloaded(llama, monkeypatch, trusted):
    attempts = []

    def refuse(*args, **kwargs):
        attempts.append(args)
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    auto_map = {"AutoConfig": "some/where--homemade.Config", "AutoModel": "some/where--homemade.Model"}
    edit_config(llama, model_type="homemade", auto_map=auto_map)
    traced = trace(llama, shapes_in(llama), trust_remote_code=trusted)
    assert not traced.layouts
    assert traced.notes[0].endswith("so names and shapes decide")
    assert not attempts


def test_buffers_are_no_parameters(tmp_path):
    MINIMAX.save(tmp_path / "model")
    shapes = shapes_in(tmp_path / "model")
    traced = trace(tmp_path / "model", shapes)
    buffers = {name for name in shapes if name.endswith(("slope_rate", "_decay"))}
    assert {name for name, reason in traced.dense_reasons.items() if reason == BUFFER} == buffers != set()
    assert not traced.notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "there is no config.json"),
        ("{", "config.json is not JSON"),
        ("[]", "config.json is not a JSON object"),
        ("{}", "transformers has no model type None"),
        ('{"model_type": "unheard-of"}', "transformers has no model type 'unheard-of'"),
        ('{"model_type": ["llama"]}', "transformers has no model type ['llama']"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "cannot be built"),
        ('{"model_type": "llama", "architectures": ["Trainer"], "hidden_size": 0}', "cannot be built"),
    ],
)
def test_an_unknown_model_falls_back_and_says_so(tmp_path, text, expected):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    traced = trace(tmp_path, {"model.layers.0.mlp.up_proj.weight": (48, 32)})
    assert not traced.layouts
    assert expected in traced.notes[0]
    assert traced.notes[0].endswith("so names and shapes decide")


def test_a_conversion_that_fails_is_a_note(tmp_path, monkeypatch):
    """As for sizes that a conversion of `transformers` cannot split."""

    def failing(model, state):
        raise RuntimeError("cannot reshape")

    monkeypatch.setattr("transformers.core_model_loading.revert_weight_conversion", failing)
    config = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    sizes = {"vocab_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    shapes = {"model.layers.0.mlp.up_proj.weight": (48, 32)}
    assert trace(tmp_path, shapes).notes == [
        "the tensors cannot be compared with the model's parameters: RuntimeError: cannot reshape, so names and shapes "
        "decide"
    ]
    assert not has_matrices_of_config_model(tmp_path, shapes)


class ConfigWithoutDefaults(transformers.PreTrainedConfig):
    """A config that cannot be made without its members, as those of some models of `transformers`."""

    model_type = "without-defaults"

    def __init__(self, part=None, **members):
        if part is None:
            raise ValueError("there is no part")
        super().__init__(**members)


def test_a_config_class_that_refuses_is_no_unknown_model_type(tmp_path):
    transformers.AutoConfig.register("without-defaults", ConfigWithoutDefaults, exist_ok=True)
    (tmp_path / "config.json").write_text('{"model_type": "without-defaults", "part": "core"}')
    assert type(load_config(tmp_path)) is ConfigWithoutDefaults
    (tmp_path / "config.json").write_text('{"model_type": "without-defaults"}')
    with pytest.raises(UntracedError, match="there is no part"):
        load_config(tmp_path)


@pytest.mark.slow
def test_a_model_larger_than_memory_is_traced_without_its_weights(tmp_path):
    settings = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
    config = transformers.LlamaConfig(**settings, num_key_value_heads=8, architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path)
    down, embedding = "model.layers.79.mlp.down_proj.weight", "model.embed_tokens.weight"
    script = f"""
import pathlib, resource, torch, transformers
from transformers.models.llama import modeling_llama
from masksmith_client.checkpoints.traced import trace
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
traced = trace(pathlib.Path({str(tmp_path)!r}), {{{down!r}: (8192, 28672), {embedding!r}: (32000, 8192)}})
assert not traced.notes, traced.notes
assert str(traced.layouts[{down!r}]) == "out in"
assert {embedding!r} in traced.dense_reasons
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(grown.stdout.split()[-1]) < 300_000  # KiB; the model's weights are 275,000,000


def test_the_client_does_without_torch_and_transformers(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert trace(tmp_path, {}) == Trace(notes=["torch and transformers not installed, so names and shapes decide"])


def test_only_what_is_needed_is_imported():
    script = "import sys, masksmith_client.checkpoints.traced; print({'torch', 'transformers'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_a_caller_keeps_what_it_says_itself():
    own = Candidate("w", (8, 8), "F32", layout=Layout(("in", "out")), dense_by_default_reason="by choice")
    said = Trace({"w": Layout(("out", "in"), rule="model")}, {"w": "an embedding"})
    assert traced_candidates([own, Candidate("v", (8, 8))], said) == [own, Candidate("v", (8, 8))]
