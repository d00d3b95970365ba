"""Which files of a model's directory are weights, also in formats that masksmith does not read."""

import pytest

from masksmith_wire.output_names import is_weights_path


@pytest.mark.parametrize(
    "path",
    [
        "pytorch_model_fsdp_0/__0_0.distcp",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
        "bert_model.ckpt.meta",
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.index",
        "frozen_graph.pb",
        "model.keras",
        "model.nemo",
        "model_state.pdparams",
        "model-0000.params",
        "model.engine",
        "model.pte",
        "model.llamafile",
        "model.safetensors.bak",
        "model-Q4.GGUF",
        "model-Q8.gguf.part1of2",
        "model.onnx.data.1",
        "model.mlpackage/Manifest.json",
        "openvino_model.xml",
        "pytorch_model.bin.index.fp16.json",
        "model.safetensors.index.fp16.json",
        "pytorch_model.bin~",
        "model.safetensors.tmp",
        "model-00001-of-00002.safetensors.incomplete",
        "model.safetensors.zst.1",
        "weights.safetensors.gz",
        "model.weights.bin.0",
        "params.msgpack.zst",
        "x.pth.tar",
        "weights.pdiparams",
        "weights.npy",
        "pytorch_model.zip",
        "weights.tar",
        "model.tar.gz",
        "my-model.tgz",
        "model.ckpt-100.index",
        "variables/variables.index",
        "tensorrt/model.trt",
        "model.torchscript",
        "traced.ptl",
        "model.ncnn.param",
        "model.mnn",
        "yolov3.weights",
    ],
)
def test_weights_in_any_format(path):
    assert is_weights_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "config.json.bak",
        "params.json",
        "model_index.json",
        "tokenizer.model",
        "vocab.index.txt",
        "speaker_embeddings/en_0.npy",
        "model.ckpt.yaml",
        "images/loss.xml",
        "README.md~",
        "vocab.json.gz",
        "images.zip",
        "sounds/model_card.tar.txt",
        "merges.txt.1",
        "remodel/plan.npy",
    ],
)
def test_other_files(path):
    assert not is_weights_path(path)
