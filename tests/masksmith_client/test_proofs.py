"""`masks.verify`: the score from the weights, and a bound that is computed here."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import masksmith as ms
from masksmith.layouts import Layout
from masksmith_client import InputError, Masks, WireError
from masksmith_wire.documents import TensorReport
from masksmith_wire.masks import MaskInfo, file_header, pack

PATTERN = "transposable 2:4"
WEIGHT = np.random.default_rng(5).standard_normal((16, 16)).astype(np.float32)


@pytest.fixture
def solution():
    return ms.solve(np.abs(WEIGHT), PATTERN)


@pytest.fixture
def masks_of(tmp_path):
    """Masks as they come from a job that claims this."""

    def masks_of(mask, objective=None, upper_bound=None, status="optimal", scores="magnitude", pattern=PATTERN):
        info = MaskInfo(shape=[16, 16], pattern=pattern).with_digest(pack(mask))
        path = tmp_path / "masks"
        path.write_bytes(file_header({"w": info}) + pack(mask).tobytes())
        masks = Masks.open(path)
        if objective is not None:
            report = TensorReport(name="w", state="succeeded", shape=[16, 16], status=status, objective=objective,
                                  upper_bound=upper_bound)  # fmt: skip
            masks.job = SimpleNamespace(document=SimpleNamespace(scores=scores, tensors=[report]))
        return masks

    return masks_of


@pytest.mark.parametrize("prove", [False, True])
@pytest.mark.parametrize("weight", [WEIGHT, torch.from_numpy(WEIGHT)], ids=["numpy", "torch"])
def test_what_is_true_is_confirmed(solution, masks_of, prove, weight):
    proof = masks_of(solution.mask, solution.objective, solution.upper_bound).verify({"w": weight}, prove=prove)["w"]
    assert proof, proof.message
    assert proof.objective == pytest.approx(solution.objective, rel=1e-12)
    assert proof.gap == pytest.approx(0, abs=1e-12)
    assert proof.proved_here is prove
    assert ("computed here is" in proof.message) is prove
    assert ("duals were not sent" in proof.message) is not prove


def test_a_mask_without_a_job_has_a_score_and_a_bound(solution, masks_of):
    masks = masks_of(solution.mask)
    assert masks.verify({"w": WEIGHT})["w"].upper_bound is None
    assert "no job claims" in masks.verify({"w": WEIGHT})["w"].message
    assert masks.verify({"w": WEIGHT}, prove=True)["w"].gap == pytest.approx(0, abs=1e-12)


def test_another_score_than_claimed_is_found(solution, masks_of):
    proof = masks_of(solution.mask, solution.objective * 1.001, solution.upper_bound * 1.001).verify({"w": WEIGHT})["w"]
    assert not proof
    assert "and the job claims" in proof.message


def test_a_score_that_is_no_number_is_no_proof(solution, masks_of):
    scores = np.abs(WEIGHT)
    scores[solution.mask] = np.nan
    proof = masks_of(solution.mask).verify({}, scores={"w": scores})["w"]
    assert not proof
    assert proof.message == "the mask keeps a score of nan, which is not finite"


class Array:
    """An array of another library than numpy and torch."""

    def __init__(self, values):
        self._values, self.shape, self.dtype = values, values.shape, values.dtype

    def __array__(self, dtype=None, copy=None):
        return self._values


@pytest.mark.parametrize("prove", [False, True])
def test_arrays_of_other_libraries_are_read(solution, masks_of, prove):
    masks = masks_of(solution.mask, solution.objective, solution.upper_bound)
    assert masks.verify({"w": Array(WEIGHT)}, prove=prove)["w"]
    assert masks.verify({}, scores={"w": Array(np.abs(WEIGHT))}, prove=prove)["w"]


def test_a_bound_below_the_score_is_found(solution, masks_of):
    proof = masks_of(solution.mask, solution.objective, solution.objective * 0.9, "feasible").verify({"w": WEIGHT})["w"]
    assert not proof
    assert "more than the upper bound" in proof.message


@pytest.mark.parametrize("prove", [False, True])
def test_a_worse_mask_that_claims_to_be_optimal_is_found_by_a_bound_of_its_own(masks_of, prove):
    worse = ms.solve(np.random.default_rng(6).random((16, 16), np.float32), PATTERN).mask
    kept = float(np.abs(WEIGHT)[worse].sum(dtype=np.float64))
    proof = masks_of(worse, kept, kept).verify({"w": WEIGHT}, prove=prove)["w"]
    assert bool(proof) is not prove
    assert ("claims an optimum" in proof.message) is prove


@pytest.mark.parametrize("weight", [WEIGHT, torch.from_numpy(WEIGHT)], ids=["numpy", "torch"])
@pytest.mark.parametrize(
    ("norm", "norm_of"), [("l1", np.sum), ("mean", np.mean), ("l2", np.linalg.norm)], ids=["l1", "mean", "l2"]
)
def test_norms_of_blocks_are_compared_with_norms(masks_of, weight, norm, norm_of):
    pattern = f"block 4x4 50% norm {norm}"
    mask = ms.solve(np.abs(WEIGHT), pattern).mask
    blocks = [
        np.abs(WEIGHT).astype(np.float64)[i : i + 4, j : j + 4]
        for i in range(0, 16, 4)
        for j in range(0, 16, 4)
        if mask[i, j]
    ]
    kept = sum(float(norm_of(block)) for block in blocks)
    proof = masks_of(mask, kept, kept, pattern=pattern).verify({"w": weight}, prove=True)["w"]
    assert proof, proof.message
    assert proof.objective == pytest.approx(kept)
    assert not masks_of(mask, 1.001 * kept, 1.001 * kept, pattern=pattern).verify({"w": weight})["w"]


def test_scores_of_a_statistic_are_to_be_passed(solution, masks_of):
    masks = masks_of(solution.mask, solution.objective, solution.upper_bound, scores="wanda")
    with pytest.raises(InputError, match="computed from norms: pass the scores in"):
        masks.verify({"w": WEIGHT})
    second_order = masks_of(solution.mask, solution.objective, solution.upper_bound, scores="sparsegpt")
    with pytest.raises(InputError, match="computed from inverse_diagonal or gram"):
        second_order.verify({"w": WEIGHT})
    assert masks.verify({"w": WEIGHT}, scores={"w": np.abs(WEIGHT)})["w"]
    with pytest.raises(InputError, match="weight of the mask 'w' is missing"):
        masks.verify({})
    with pytest.raises(InputError, match="shape"):
        masks.verify({}, scores={"w": WEIGHT[:8]})
    with pytest.raises(InputError, match="scores= has names without a mask: 'other'; there are 'w'"):
        masks.verify({"w": WEIGHT}, scores={"w": np.abs(WEIGHT), "other": WEIGHT})


def test_scores_that_a_job_was_given_are_the_tensors_or_to_be_passed(solution, masks_of):
    masks, scores = masks_of(solution.mask, solution.objective, solution.upper_bound, scores="given"), np.abs(WEIGHT)
    assert masks.verify({"w": scores})["w"]
    assert masks.verify({"w": WEIGHT}, scores={"w": scores})["w"]
    for prove in (False, True):
        with pytest.raises(InputError, match="scores of 'w' were given to the job"):
            masks.verify({"w": WEIGHT}, prove=prove)
    assert not masks.verify({}, scores={"w": 2 * scores})["w"]


def test_a_job_without_a_finite_bound_claims_none(solution, masks_of):
    masks = masks_of(solution.mask, solution.objective, None, "feasible")
    proof = masks.verify({"w": WEIGHT})["w"]
    assert proof, proof.message
    assert "as claimed; the job found no finite bound: verify(..., prove=True) computes one" in proof.message
    assert proof.gap is None
    assert masks.verify({"w": WEIGHT}, prove=True)["w"].gap == pytest.approx(0, abs=1e-12)


def test_a_damaged_mask_is_not_verified(solution, masks_of, tmp_path):
    masks = masks_of(solution.mask, solution.objective, solution.upper_bound)
    data = bytearray((tmp_path / "masks").read_bytes())
    data[-1] ^= 1
    (tmp_path / "masks").write_bytes(data)
    with pytest.raises(WireError):
        masks.verify({"w": WEIGHT})


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_mask_of_an_opened_file_that_violates_its_pattern_is_found(tmp_path, is_packed):
    mask = np.ones((16, 16), bool)
    info = MaskInfo(shape=[16, 16], pattern=PATTERN)
    path = tmp_path / "masks.safetensors"
    if is_packed:
        path.write_bytes(file_header({"w": info.with_digest(pack(mask))}) + pack(mask).tobytes())
    else:
        metadata = {"masksmith": json.dumps({"w": info.model_dump(mode="json")})}
        save_file({"w": mask}, path, metadata)
    masks = Masks.open(path)
    assert masks["w"].all()
    with pytest.raises(WireError, match="'w' violates its pattern 'transposable 2:4'"):
        masks.verify({"w": WEIGHT})


def test_each_matrix_of_a_stack_is_scored_on_its_own(tmp_path):
    weight = np.random.default_rng(7).standard_normal((3, 8, 8)).astype(np.float32)
    layout = Layout.parse("stack out in")
    solution = ms.solve(ms.scores.by_layout(layout, "ria", weight, power=0.0), "2:4", layout=layout)
    info = MaskInfo.of((3, 8, 8), solution.pattern, layout)
    (tmp_path / "masks").write_bytes(file_header({"w": info}) + pack(solution.mask).tobytes())
    masks = Masks.open(tmp_path / "masks")
    report = TensorReport(name="w", state="succeeded", shape=[3, 8, 8], status="optimal", objective=solution.objective,
                          upper_bound=solution.upper_bound)  # fmt: skip
    masks.job = SimpleNamespace(document=SimpleNamespace(scores="ria power=0", tensors=[report]))
    proof = masks.verify({"w": weight})["w"]
    assert proof, proof.message
