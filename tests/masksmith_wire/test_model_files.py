"""Which files of a directory are the weights of its model."""

import pytest

from masksmith_wire.model_files import ModelFilesError, check_index, no_weights_reason, weights_name

INDEX = "model.safetensors.index.json"
VARIANT_INDEX, VARIANT_PART = "model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["config.json", "model.safetensors"], "model.safetensors"),
        (["a.safetensors", "b.safetensors", INDEX], INDEX),
        (["model.safetensors", "masks.safetensors", ".hidden.safetensors"], "model.safetensors"),
        (["model.safetensors", "consolidated.safetensors"], "model.safetensors"),
        (["model.safetensors", "consolidated.safetensors.index.json"], "model.safetensors"),
        (["consolidated.safetensors", "params.json"], "consolidated.safetensors"),
        ([INDEX, VARIANT_INDEX, VARIANT_PART, "model-00001-of-00002.safetensors"], INDEX),
        ([VARIANT_INDEX, VARIANT_PART, "config.json"], VARIANT_INDEX),
        ([VARIANT_INDEX, "model.safetensors"], "model.safetensors"),
        (["masks.safetensors", "pytorch_model.bin"], None),
        ([], None),
    ],
)
def test_the_weights_are_the_index_or_the_only_file(names, expected):
    assert weights_name(reversed(names)) == expected


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["b.safetensors", "a.safetensors"], "2 candidates (a.safetensors, b.safetensors)"),
        ([f"{k}.safetensors" for k in range(5)], "(0.safetensors, 1.safetensors, 2.safetensors, 3.safetensors, ...)"),
        ([INDEX, "other.safetensors.index.json"], f"({INDEX}, other.safetensors.index.json)"),
        ([VARIANT_INDEX, VARIANT_PART, "model.safetensors"], f"2 candidates ({VARIANT_INDEX}, model.safetensors)"),
    ],
)
def test_several_candidates_are_named(names, shown):
    with pytest.raises(ModelFilesError) as error:
        weights_name(names)
    assert shown in str(error.value)


def test_a_file_that_is_read_before_the_index_contradicts_it():
    names = [INDEX, "a.safetensors", "model.safetensors"]
    check_index(INDEX, ["a.safetensors", "model.safetensors"], names)
    check_index(INDEX, ["a.safetensors"], names[:2])
    with pytest.raises(ModelFilesError, match="which does not list it"):
        check_index(INDEX, ["a.safetensors"], names)


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["pytorch_model.bin", "config.json"], "but pytorch_model.bin: pickles, which can run code"),
        ([f"pytorch_model-{k}.bin" for k in range(6)], "pytorch_model-3.bin, ...: pickles"),
        (["model.gguf", "README.md"], "but model.gguf, which has another format; convert"),
        (["unet/model.safetensors", "vae/model.safetensors", "a.json"], "name one of these: unet, vae"),
        (["README.md", ".gitattributes", "masks.safetensors"], "it contains README.md, masks.safetensors: name"),
    ],
)
def test_a_directory_without_weights_is_described(paths, shown):
    assert shown in no_weights_reason(paths)
