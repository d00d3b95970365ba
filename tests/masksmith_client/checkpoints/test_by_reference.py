"""What the client asks for when a model is pruned by reference."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import masksmith as ms
from masksmith.patterns import TensorPatterns
from masksmith_client import Client, InputError, TransportError
from masksmith_client.checkpoints.by_reference import ReferencePruner, chosen_tensors, is_by_reference, location_of
from masksmith_client.checkpoints.choice import ChoiceOptions
from masksmith_client.checkpoints.prune_method import PruneMethod
from masksmith_client.checkpoints.prune_options import choice_options_of
from masksmith_wire.references import ListedTensor, ModelListing

SHAPES = {
    "model.embed_tokens.weight": [64, 32],
    "model.layers.0.mlp.experts.gate_up_proj": [4, 32, 64],
    "model.layers.0.q_proj.weight": [32, 32],
    "model.layers.0.norm.weight": [32],
}


def listing(location="s3://models/m", config=None, shapes=SHAPES):
    tensors = [
        ListedTensor(name=name, dtype="F32", shape=shape, file=f"{location}/{number}.safetensors", format="pt")
        for number, (name, shape) in enumerate(shapes.items())
    ]
    return ModelListing(location=location, tensors=tensors, config=config)


class Jobs:
    """Answers listings, and keeps the document of the job."""

    def __init__(self, *listings):
        self._listings = {each.location: each for each in listings}
        self.request = None

    def list_reference(self, location):
        return self._listings[location]

    def submit_request(self, request):
        self.request = request
        return self

    def wait(self, progress):
        return self

    def output(self):
        return {"tensors": []}


def options(*patterns, **more):
    return ChoiceOptions(TensorPatterns.parse(patterns), **more)


def test_names_config_and_shapes_decide_what_cannot_be_read_here():
    chosen = chosen_tensors(listing(config={"model_type": "gpt_oss"}), options("2:4"))
    layouts = {name: layout.axes for name, (layout, _) in chosen.items()}
    assert layouts == {
        "model.layers.0.mlp.experts.gate_up_proj": "stack in out", "model.layers.0.q_proj.weight": "out in"
    }  # fmt: skip
    (given,) = chosen_tensors(
        listing(), options("2:4", layers=["*experts*"], layouts={"*experts*": "stack out in"})
    ).values()
    assert given[0].axes == "stack out in"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"layers": ["nothing"]}, "no tensor is called 'nothing'"),
        ({"layers": ["model.layers.0.norm.weight"]}, "cannot be masked"),
        ({"layouts": {"nothing": "out in"}}, "no tensor has this name"),
        ({"exclude": ["*"]}, "none of"),
    ],
)
def test_names_that_match_nothing_are_refused(more, reason):
    with pytest.raises(InputError, match=reason):
        chosen_tensors(listing(), options("2:4", **more))


def test_the_document_names_files_and_output():
    jobs = Jobs(listing())
    pruner = ReferencePruner(jobs, PruneMethod.parse("magnitude"))
    pruner.prune("s3://models/m", "s3://pruned/m", options("2:4", "q_proj=transposable 2:4", layers=["*q_proj*"]))
    document = json.loads(jobs.request.model_dump_json(exclude_none=True))
    assert document["output"] == {"location": "s3://pruned/m", "model": "s3://models/m"}
    assert document["priority"] == "batch"
    assert document["name"] == "m, 2:4, q_proj=transposable 2:4"
    (tensor,) = document["tensors"]
    assert tensor["reference"] == "s3://models/m/2.safetensors"
    assert tensor["pattern"] == "transposable 2:4"
    assert "digest" not in tensor


def test_statistics_are_references_too():
    calibration = listing("s3://models/c.safetensors", shapes={"model.layers.0.q_proj.weight/norms": [32]})
    jobs = Jobs(listing(), calibration)
    pruner = ReferencePruner(jobs, PruneMethod.parse("wanda", None, "s3://models/c.safetensors"))
    pruner.prune("s3://models/m", "s3://pruned/m", options("2:4", layers=["*q_proj*"]))
    (tensor,) = jobs.request.tensors
    assert (tensor.statistic.kind, tensor.statistic.key) == ("norms", "model.layers.0.q_proj.weight/norms")
    assert tensor.statistic.reference == "s3://models/c.safetensors/0.safetensors"
    with pytest.raises(InputError, match=r"the calibration has no .*; leave it out with exclude=$"):
        pruner.prune("s3://models/m", "s3://p/m", options("2:4", layouts={"*experts*": "stack in out"}))
    for scores, update in (("wanda", None), ("wanda", "reconstruct"), ("magnitude", "reconstruct")):
        needing = update if scores == "magnitude" else scores
        with pytest.raises(InputError, match=f"^{needing}.* needs a calibration: the reference of a file in a root"):
            ReferencePruner(jobs, PruneMethod.parse(scores, update)).prune("s3://models/m", "s3://p/m", options("2:4"))
    method = PruneMethod.parse("magnitude", None, "s3://models/c.safetensors")
    with pytest.raises(InputError, match="'magnitude' use the weights alone: leave the calibration out"):
        ReferencePruner(jobs, method).prune("s3://models/m", "s3://p/m", options("2:4"))
    method = PruneMethod.parse("wanda", None, {"a": np.ones(3)})
    with pytest.raises(InputError, match="the reference of a file in a root"):
        ReferencePruner(jobs, method).prune("s3://models/m", "s3://p/m", options("2:4"))


@pytest.mark.parametrize(
    ("previous", "sent"),
    [
        (None, None),
        ("s3://pruned/m", "s3://pruned/m"),
        ("01j9", "{here}/01j9"),
        ("0" * 27, "0" * 27),
        (Path("/pruned/m"), "/pruned/m"),
        ("pruned/../m/masks.safetensors", "{here}/m/masks.safetensors"),
    ],
)
def test_previous_masks_are_a_job_or_a_reference(previous, sent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = Jobs(listing())
    pruner = ReferencePruner(jobs, PruneMethod.parse("magnitude"), previous=previous)
    pruner.prune("s3://models/m", "s3://p/m", options("2:4"))
    assert jobs.request.previous == (sent and sent.format(here=tmp_path))


def test_other_values_are_no_previous_masks(tmp_path):
    with pytest.raises(InputError, match="previous=3 is not a job"):
        ReferencePruner(Jobs(listing()), PruneMethod.parse("magnitude"), previous=3).prune(
            "s3://models/m", "s3://p", options("2:4")
        )
    with (
        Client("http://127.0.0.1:9") as client,
        pytest.raises(InputError, match="previous works only with by_reference"),
    ):
        client.prune(tmp_path, tmp_path / "out", "2:4", previous="s3://pruned/m")


def test_a_model_that_can_be_read_here_shows_its_layout(tmp_path):
    """As it does for a prune without a service; a directory with another model does not count."""
    folder = tmp_path / "m"
    folder.mkdir()
    shapes = {"h.0.attn.c_attn.weight": [32, 96], "h.0.attn.c_proj.weight": [32, 32]}
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    here = listing(str(folder), shapes=shapes)
    # The listing has no config: it is read here.
    assert {layout.axes for layout, _ in chosen_tensors(here, options("2:4")).values()} == {"in out"}
    other = listing(str(folder), shapes={"h.0.attn.c_attn.weight": [32, 48]})
    assert {layout.axes for layout, _ in chosen_tensors(other, options("2:4")).values()} != {"stack in out"}


@pytest.mark.parametrize("kind", ["an empty directory", "a long name", "a file of another user"])
def test_a_path_without_a_readable_model_here_is_only_the_services(tmp_path, monkeypatch, kind):
    folder = tmp_path / ("m" * 300 if kind == "a long name" else "m")
    if kind != "a long name":
        folder.mkdir()
    if kind == "a file of another user":
        (folder / "model.safetensors").write_bytes(b"what this user may not read")
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    chosen = chosen_tensors(listing(str(folder)), options("2:4", layers=["*q_proj*"]))
    assert list(chosen) == ["model.layers.0.q_proj.weight"]


@pytest.mark.parametrize(
    ("patterns", "more", "expected"),
    [
        ({"*": "channels out 50%", "q_proj": "2:4"}, {}, ("in", "pad")),
        ({"*": ms.Channels(0.5, axis="out"), "q_proj": ms.NM(2, 4)}, {}, ("in", "pad")),
        ({"*": "50%", "q_proj": "2:4"}, {"ragged": "dense"}, ("in", "dense")),
        ({"q_proj": "2:4", "*": "1:4"}, {"axis": "out"}, ("out", "pad")),
    ],
)
def test_axis_and_ragged_are_those_of_the_patterns_that_have_them(patterns, more, expected):
    jobs = Jobs(listing())
    chosen = choice_options_of(patterns, {"layout": {"*experts*": "stack out in"}, **more})
    ReferencePruner(jobs, PruneMethod.parse("magnitude")).prune("s3://models/m", "s3://pruned/m", chosen)
    assert (jobs.request.axis, jobs.request.ragged) == expected


def test_patterns_along_different_axes_are_refused():
    patterns = {"*": ms.NM(2, 4), "q_proj": ms.NM(2, 4, axis="out")}
    chosen = choice_options_of(patterns, {"layout": {"*experts*": "stack out in"}})
    with pytest.raises(InputError, match="must have the same axis and ragged"):
        ReferencePruner(Jobs(listing()), PruneMethod.parse("magnitude")).prune("s3://models/m", "s3://p/m", chosen)


@pytest.mark.parametrize(
    ("model", "output", "asked", "expected"),
    [
        ("s3://a", "b", False, True),
        ("a", "s3://b", False, True),
        ("a", "b", True, True),
        ("a", "b", False, False),
    ],
)
def test_a_bucket_is_always_by_reference(model, output, asked, expected):
    assert is_by_reference(model, output, {"by_reference": asked} if asked else {}) is expected


def test_ctrl_c_ends_the_call_although_the_job_cannot_be_canceled():
    class StoppedJobs(Jobs):
        def wait(self, progress):
            raise KeyboardInterrupt

        def cancel(self):
            raise TransportError("the service cannot be reached")

    pruner = ReferencePruner(StoppedJobs(listing()), PruneMethod.parse("magnitude"))
    with pytest.raises(KeyboardInterrupt):
        pruner.prune("s3://models/m", "s3://p/m", options("2:4"))


def test_a_directory_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert location_of("a/../b") == str(tmp_path / "b")
    assert location_of("s3://a/b") == "s3://a/b"
