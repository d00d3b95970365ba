"""Blocks are loaded as `from_pretrained` loads them: renamed, fused, tied, in half precision, from several shards."""

import pytest
import torch
import transformers
from support.causal_models import causal_model
from support.language_models import save_llama, save_tokenizer

from masksmith_client.checkpoints.checkpoint import Checkpoint
from masksmith_client.cli.block_prune.skeleton import Skeleton


def save(kind, folder):
    if kind == "tied":
        return save_llama(folder, tie_word_embeddings=True, shard="20KB")
    causal_model(kind).save_pretrained(folder, max_shard_size="40KB")
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize("kind", ["tied", "mixtral", "gpt_oss", "gpt2", "opt"])
def test_every_block_is_that_of_from_pretrained(kind, tmp_path):
    folder = save(kind, tmp_path / kind)
    skeleton = Skeleton(Checkpoint.open(folder), trust_remote_code=False)
    expected = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    path = {"gpt2": "transformer.h", "opt": "model.decoder.layers"}.get(kind, "model.layers")
    head = expected.get_output_embeddings()
    outside = [
        name for name, each in expected.named_parameters() if not name.startswith(path) and each is not head.weight
    ]
    skeleton.load_outside(path)
    assert_equal(skeleton.model, expected, outside)
    skeleton.release_outside(path)
    for number in range(2):
        inside = [name for name, _ in expected.named_parameters() if name.startswith(f"{path}.{number}.")]
        skeleton.load(f"{path}.{number}")
        assert_equal(skeleton.model, expected, inside)
        assert all(each.is_meta for name, each in skeleton.model.named_parameters() if name not in inside)
        skeleton.release(f"{path}.{number}")
    assert all(each.is_meta for each in skeleton.model.parameters())
    for name, buffer in expected.named_buffers():
        assert torch.equal(skeleton.model.get_buffer(name), buffer), name


def assert_equal(model, expected, names):
    assert names
    for name in names:
        assert torch.equal(model.get_parameter(name), expected.get_parameter(name)), name
