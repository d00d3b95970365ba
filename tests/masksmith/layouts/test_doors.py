"""Client, service, benchmark, training and calibration give one answer to the same selection."""

import itertools
import re

import pytest
import torch

import masksmith as ms
from masksmith.patterns import parse
from masksmith_client import InputError
from masksmith_client.checkpoints.order import natural_key
from masksmith_client.submission.benchmarks import prepare_benchmark
from masksmith_client.submission.prepare import prepare
from masksmith_client.training.layers import choose
from masksmith_client.training.methods.straight_through import SRSTE
from masksmith_service.errors import RequestError
from masksmith_service.jobs.named_tensors import locate_named
from masksmith_service.jobs.options import FileOptions, parse_file_options, parse_specification
from masksmith_service.jobs.selected_tensors import locate_selected
from masksmith_wire.documents import MasksRequest, TensorInput
from masksmith_wire.errors import Code
from masksmith_wire.headers import PREFIX_BYTES, build_header, parse_header

TENSORS = {
    "a[0].weight": ("F32", (8, 8)),
    "a0.weight": ("BF16", (8, 12)),
    "a?.weight": ("F16", (4, 4, 3, 3)),
    "w*": ("F64", (6, 6)),
    "bias": ("F32", (8,)),
    "codes[1]": ("U8", (8, 8)),
    "codes1": ("I8", (8, 8)),
    "ids": ("I64", (8, 8)),
    "packed": ("F8_E4M3", (8, 8)),
    "empty": ("F32", (0, 8)),
    "volume": ("F32", (2, 2, 2, 2, 2)),
    "large": ("F32", (2**14, 2**13)),
}
# Clients list the tensors of a file in the model's order.
TENSORS = dict(sorted(TENSORS.items(), key=lambda item: natural_key(item[0])))
LAYERS = [
    None, "*", "a*", "a[0].weight", "a[[]0].weight", ["a?.weight", "w*"], "codes[1]", "codes*", "ids", "packed", "bias",
    ["*.weight", "bias"], "empty", "volume", "large", "nothing", "nothing*", ["a*", "nothing*"],
]  # fmt: skip
EXCLUDE = [None, "a[0].weight", "a?.weight", ["a*", "w*"], "*", "nothing", ["*.weight", "none*"], "codes[[]1]"]
KINDS = {
    "is called": Code.UNKNOWN_TENSOR,
    "cannot be masked: ": Code.TENSOR_DOES_NOT_FIT,
    "can be masked: ": Code.NO_TENSOR_FITS,
}


def attempt(kind, call, *arguments, **options):
    """What a call gives, and what it raises."""
    try:
        return call(*arguments, **options), None
    except kind as error:
        return None, error


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("doors") / "model.safetensors"
    header = build_header(TENSORS)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(parse_header(header[PREFIX_BYTES:]).file_bytes)
    return path


def by_client(checkpoint, pattern, layers, exclude):
    submission, error = attempt(InputError, prepare, checkpoint, pattern, layers=layers, exclude=exclude)
    if error is not None:
        return kind_of(error), re.search("'([^']*)'", str(error)).group(1)
    return [weight.name for weight in submission.weights], {skip.name: skip.reason for skip in submission.skipped}


def kind_of(error):
    return next(code for words, code in KINDS.items() if words in str(error))


def by_service(pattern, layers, exclude):
    as_lists = {
        name: [texts] if isinstance(texts, str) else texts or []
        for name, texts in (("layers", layers), ("exclude", exclude))
    }
    header = parse_header(build_header(TENSORS)[PREFIX_BYTES:])
    options = FileOptions(pattern=[pattern], **as_lists)
    specification = parse_file_options(options)
    located, error = attempt(RequestError, locate_selected, options, specification, {"0" * 64: header})
    if error is not None:
        assert error.status == 422
        skipped = [skip["name"] for skip in error.extra.get("skipped", []) if skip["reason"] != "not selected"]
        return error.code, error.extra.get("tensor") or skipped[0]
    tensors, selection = located
    return [tensor.name for tensor in tensors], selection.skipped


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_client_and_service_select_alike(checkpoint, pattern, layers):
    for exclude in EXCLUDE:
        assert by_client(checkpoint, pattern, layers, exclude) == by_service(pattern, layers, exclude), exclude


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
@pytest.mark.parametrize("name", TENSORS)
def test_a_document_names_each_tensor_as_layers_does(pattern, name):
    header = parse_header(build_header(TENSORS)[PREFIX_BYTES:])
    document = MasksRequest(pattern=pattern, tensors=[TensorInput(name=name, digest="0" * 64, key=name)])
    specification, headers = parse_specification(document), {"0" * 64: header}
    located, error = attempt(RequestError, locate_named, document.tensors, specification, headers, {})
    answer = by_service(pattern, name, None)
    if error is not None:
        assert (error.code, error.extra["tensor"]) == answer
    else:
        assert [tensor.name for tensor in located] == answer[0] == [name]


@pytest.mark.parametrize(("layers", "exclude"), [*itertools.product(LAYERS[:6], EXCLUDE[:6])], ids=str)
def test_benchmarks_take_the_matrices_of_what_is_masked(checkpoint, layers, exclude):
    answer = by_client(checkpoint, "2:4", layers, exclude)
    matrices = [name for name in answer[0] if TENSORS[name][0][0] != "I"] if isinstance(answer[0], list) else []
    matrices = [name for name in matrices if len(TENSORS[name][1]) == 2]
    request, error = attempt(InputError, prepare_benchmark, checkpoint, "2:4", layers=layers, exclude=exclude)
    if not matrices or "cannot be measured" in str(error):
        assert error is not None
        assert "cannot be measured" not in str(error) or ("a?.weight" in layers and exclude != "a?.weight")
        return
    shapes = sorted(TENSORS[name][1] for name in matrices)
    assert sorted((layer.rows, layer.cols) for layer in request.layers for _ in range(layer.count)) == shapes


@pytest.fixture
def model():
    modules = {name: torch.nn.Linear(8, 8, bias=False) for name in ("a[0]", "a0", "a?", "b")}
    model = torch.nn.Module()
    for name, module in modules.items():
        model.add_module(name, module)
    model.forward = lambda x: sum(module(x) for module in modules.values())
    return model


TORCH_LAYERS = ["*", "a[0].weight", "a[[]0].weight", "a?.weight", "a*", ["a0.weight", "b*"], "c.weight", ["*", "c*"]]


@pytest.mark.parametrize("exclude", [None, "a[0].weight", "a?.weight", "*0.weight", "*", "c*"], ids=str)
@pytest.mark.parametrize("layers", TORCH_LAYERS, ids=str)
def test_training_and_clients_select_alike(model, layers, exclude):
    submission, error = attempt(InputError, prepare, model, "2:4", layers=layers, exclude=exclude)
    if error is not None:
        with pytest.raises(InputError) as caught:
            choose(model, parse("2:4"), SRSTE(), layers, exclude)
        assert kind_of(caught.value) == kind_of(error)
        return
    chosen, skipped = choose(model, parse("2:4"), SRSTE(), layers, exclude)
    assert [layer.name for layer in chosen] == [weight.name for weight in submission.weights]
    assert skipped == {skip.name: skip.reason for skip in submission.skipped}


@pytest.mark.parametrize("layers", [None, *TORCH_LAYERS, "a[0]", "a?", ["a0", "b"]], ids=str)
def test_calibration_and_training_select_alike(model, layers):
    batches = [torch.ones(2, 8)]
    # All but the first and the last is training's own default.
    masked, refused = attempt(InputError, choose, model, parse("2:4"), SRSTE(), layers or "*", None)
    if refused is not None:
        with pytest.raises(ms.ScoresError):
            ms.calibrate(model, batches, layers=layers)
        return
    assert list(ms.calibrate(model, batches, layers=layers)) == [layer.name for layer in masked[0]]
