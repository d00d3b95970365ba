"""Layouts from the model's own classes, against the values that enter its products."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.matrix_products import Seen, product_of, watch
from support.tiny_models import MODELS, TinyModel, shapes_in

from masksmith.layouts import Candidate, select, with_layouts
from masksmith.patterns import parse
from masksmith_client.checkpoints.traced import trace, traced_candidates


@dataclass
class Saved:
    model: TinyModel
    directory: Path
    shapes: dict[str, tuple[int, ...]]
    seen: Seen

    @property
    def candidates(self) -> list[Candidate]:
        return [Candidate(name, shape, "F32") for name, shape in self.shapes.items()]

    @property
    def config(self) -> dict:
        return json.loads((self.directory / "config.json").read_text())


@pytest.fixture(scope="module", params=MODELS, ids=lambda model: model.name)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param.name)
    directory = folder / "model"
    request.param.save(directory)
    seen = watch(directory, folder, request.param.model_class, [request.param.batch(seed) for seed in range(3)])
    return Saved(request.param, directory, shapes_in(directory), seen)


@pytest.fixture(scope="module")
def traced(saved):
    return trace(saved.directory, saved.shapes)


def chosen(candidates: list[Candidate]) -> list[Candidate]:
    names = set(select(candidates, parse("2:4")).chosen)
    return [each for each in candidates if each.name in names]


def test_the_oracle_sees_every_tensor_that_is_masked(saved):
    masked = {name for name in saved.shapes if saved.model.is_masked(name)}
    assert masked
    assert masked <= saved.seen.products.keys()


def test_every_layout_is_that_of_the_products(saved, traced):
    assert not [note for note in traced.notes if "cls_token" not in note]
    for name, products in saved.seen.products.items():
        assert {product_of(traced.layouts[name].axes)} == products, name
    assert traced.layouts.keys() <= saved.seen.products.keys() | saved.seen.depthwise
    assert {layout.rule for layout in traced.layouts.values()} == {"model"}


def test_the_matrices_of_blocks_are_masked_and_nothing_else(saved, traced):
    masked = chosen(with_layouts(traced_candidates(saved.candidates, traced), config=saved.config))
    assert {each.name for each in masked} == {name for name in saved.shapes if saved.model.is_masked(name)}
    assert {each.layout.rule for each in masked} == {"model"}


def test_what_is_looked_up_or_enters_no_product_is_dense(saved, traced):
    matrices = saved.seen.products.keys() - saved.seen.looked_up
    for name, shape in saved.shapes.items():
        if len(shape) >= 2 and name not in matrices and not name.endswith("cls_token"):
            assert traced.dense_reasons[name], name
    assert not [name for name in traced.dense_reasons if saved.model.is_masked(name)]


def test_tied_tensors_are_the_stored_ones(saved, traced):
    weights = {name: stored for name, stored in traced.tied.items() if name.endswith("weight")}
    assert set(weights.values()) == ({saved.model.tied} if saved.model.tied else set())
    assert not weights.keys() & saved.shapes.keys()


@pytest.mark.parametrize("has_config", [True, False])
def test_names_and_shapes_never_contradict_the_products(saved, has_config):
    candidates = with_layouts(saved.candidates, config=saved.config if has_config else None)
    masked = chosen(candidates)
    assert {each.name for each in masked} <= {name for name in saved.shapes if saved.model.is_masked(name)}
    for each in masked:
        assert {product_of(each.layout.axes)} == saved.seen.products[each.name], each.name
    skipped = {each.name: each for each in candidates} | {each.name: None for each in masked}
    for name in filter(saved.model.is_masked, saved.shapes):
        assert skipped[name] is None or skipped[name].unsupported_reason, name
