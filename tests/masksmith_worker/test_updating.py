"""Shards that update weights: the library's answers, in the tensor's own dtype."""

import re
import resource

import numpy as np
import pytest
import safetensors.torch
import torch
from blake3 import blake3
from support.leases import run_shard
from support.shards import specified

import masksmith as ms
from masksmith_state.blobs.names import upload_name, weights_name
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, cut
from masksmith_wire.documents import JobState
from masksmith_wire.dtypes import to_bytes, to_numpy
from masksmith_wire.headers import header_length, parse_header
from masksmith_worker.stages import memory

RNG = np.random.default_rng(7)
WEIGHT = torch.from_numpy(RNG.standard_normal((32, 16)).astype(np.float32))
SEEN = RNG.standard_normal((200, 16)) @ RNG.standard_normal((16, 16))
GRAM = torch.from_numpy(SEEN.T @ SEEN)


@pytest.fixture
def update(records, store, runner):
    """Store a weight and its Gram matrix, run a job on them; gives record, reports and the job's weights."""

    def update(weight, gram, pattern, text, shard_bytes=2**20, axes=None, **options):
        data = safetensors.torch.save({"a": weight, "a/gram": gram})
        digest = blake3(data).hexdigest()
        store.put(upload_name(digest), data)
        found = parse_header(data[8 : 8 + header_length(data)]).tensors
        whole, products = (
            PlannedTensor(name=name, digest=digest, dtype=one.dtype, shape=list(one.shape), start=one.start)
            for name, one in ((name, found[name]) for name in ("a", "a/gram"))
        )
        planned = [whole.model_copy(update={"gram": products, "axes": axes})]
        specification = specified(pattern, update=text, **options)
        shards = cut(planned, specification, shard_bytes)
        job, _ = records.create(MasksPlan(options=specification.options, tensors=planned), shards)
        for index in range(len(shards)):
            run_shard(runner, job, index)
        reports = [records.reports(job)[index] for index in range(len(shards))]
        parts = [store.get(weights_name(report.result)) for report in reports if report.result]
        return records.read(job), reports, b"".join(parts)

    return update


@pytest.mark.parametrize("shard_bytes", [512, 2**20])
@pytest.mark.parametrize("pattern", ["2:4", "transposable 2:4"])
def test_shards_have_the_librarys_weights(update, pattern, shard_bytes):
    record, reports, data = update(WEIGHT, GRAM, pattern, "reconstruct damping=0.05", shard_bytes)
    assert record.state is JobState.SUCCEEDED
    assert len(reports) == (4 if shard_bytes == 512 else 1)
    mask = ms.solve(ms.magnitude(WEIGHT), pattern).mask
    wanted = ms.reconstruct(WEIGHT, mask, GRAM, damping=0.05)
    np.testing.assert_allclose(to_numpy(data, "F32", (32, 16)), wanted.weight, rtol=1e-5, atol=1e-7)
    assert sum(report.update.error for report in reports) == pytest.approx(wanted.error)
    assert sum(report.update.masked_error for report in reports) == pytest.approx(wanted.masked_error)


def test_admm_gives_its_own_mask_with_its_proof(update):
    _, [report], data = update(WEIGHT, GRAM, "transposable 4:8", "admm penalty=0.1", 512)
    weight = to_numpy(data, "F32", (32, 16))
    assert ms.verify(weight != 0, "transposable 4:8")
    start = ms.solve(ms.magnitude(WEIGHT), "transposable 4:8")
    assert report.update.error < ms.reconstruct(WEIGHT, start.mask, GRAM).error
    assert (report.status, report.update.solves > 1) == ("optimal", True)
    assert report.objective == report.upper_bound


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_keep_their_dtype_and_the_error_counts_its_rounding(update, dtype):
    weight = WEIGHT.to(dtype)
    _, [report], data = update(weight, GRAM, "2:4", "reconstruct")
    known = {torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    assert len(data) == weight.numel() * weight.element_size()
    stored = to_numpy(data, known, (32, 16)).astype(np.float64)
    change = stored - weight.double().numpy()
    assert report.update.error == pytest.approx(float(np.sum((change @ GRAM.numpy()) * change)))
    assert report.update.error < report.update.masked_error
    assert to_bytes(to_numpy(data, known, (32, 16)), known) == data


def test_a_result_is_remembered_with_its_weights(update, store):
    _, [first], _ = update(WEIGHT, GRAM, "2:4", "reconstruct")
    store.delete(weights_name(first.result))
    _, [again], data = update(WEIGHT, GRAM, "2:4", "reconstruct")
    assert again.result == first.result
    assert len(data) == 32 * 16 * 4


def test_an_update_that_starts_from_a_mask_ended_by_a_time_limit_is_not_reused(update):
    weight, gram = WEIGHT.repeat(20, 20), torch.eye(320, dtype=torch.float64)
    results = set()
    for _ in range(2):
        _, reports, _ = update(weight, gram, "transposable 8:16", "admm max_rounds=3", time_limit_s=1e-9)
        results |= {report.result for report in reports}
        assert not any(report.remembered for report in reports)
    assert len(results) == 2


@pytest.mark.parametrize(
    ("gram", "message"),
    [
        (torch.zeros(16, 16) + torch.nan, r"tensor 'a': gram holds nan at \[0, 0\]"),
        (-GRAM, "tensor 'a': gram holds -"),
        (torch.ones(16, 16), r"not positive definite on the support of a row; .* \(row "),
    ],
)
def test_a_gram_matrix_that_cannot_be_used_is_named(update, gram, message):
    record, [report], data = update(WEIGHT, gram, "2:4", "reconstruct damping=0")
    assert record.state is JobState.FAILED
    assert report.error.code == "invalid_calibration"
    assert re.search(message, report.error.message)
    assert data == b""


def test_the_row_of_an_error_is_that_of_the_tensor_and_in_a_stack_that_of_a_matrix(update):
    def rows_of(reports):
        return [int(re.search(r"\(row (\d+)\)", report.error.message)[1]) for report in reports]

    gram = torch.ones(16, 16)
    _, reports, _ = update(WEIGHT, gram, "2:4", "reconstruct damping=0", shard_bytes=512)
    rows = rows_of(reports)
    assert [row // 8 for row in rows] == [0, 1, 2, 3]
    stack = WEIGHT.reshape(4, 8, 16)
    grams = gram.expand(4, 16, 16).contiguous()
    _, reports, _ = update(stack, grams, "2:4", "reconstruct damping=0", shard_bytes=512, axes="stack out in")
    assert rows_of(reports) == [row % 8 for row in rows]


@pytest.mark.parametrize(("factor", "largest"), [(1e70, r"e\+70"), (1e-70, "e-70")])
def test_a_weight_that_cannot_be_updated_is_named_and_not_its_calibration(update, factor, largest):
    _, [report], _ = update(WEIGHT.double() * factor, GRAM, "2:4", "reconstruct")
    assert report.error.code == "invalid_scores"
    assert re.search(rf"tensor 'a': the largest entry of weight is .*{largest}", report.error.message)


@pytest.mark.parametrize("text", ["reconstruct", "admm"])
def test_a_gram_matrix_that_does_not_fit_is_refused_with_both_numbers(update, monkeypatch, text):
    """Above a size, which is that of `WHOLE_BYTES`; before it is read."""
    monkeypatch.setattr(memory, "WHOLE_BYTES", 16 * 16 * 8 - 1)
    needed = int(memory.PEAK_MATRICES[text] * 16 * 16 * 8)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    _, [report], _ = update(WEIGHT, GRAM, "2:4", text)
    assert report.error.code == "insufficient_memory"
    assert f"tensor 'a': {text} needs {needed} bytes" in report.error.message
    assert f"[16, 16], and a slot of this worker can take {needed - 1};" in report.error.message
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    _, [report], _ = update(WEIGHT, GRAM, "2:4", text)
    assert report.error is None
    monkeypatch.setattr(memory, "WHOLE_BYTES", 16 * 16 * 8)
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    _, [report], _ = update(WEIGHT, GRAM, "2:4", text)
    assert report.error is None


@pytest.mark.parametrize(("axes", "stack"), [("stack out in", (6,)), ("stack stack out in", (2, 3))])
def test_all_gram_matrices_of_a_stack_are_counted(update, monkeypatch, axes, stack):
    weight, gram = (matrix.expand(*stack, *matrix.shape).clone() for matrix in (WEIGHT, GRAM))
    needed = int((memory.PEAK_MATRICES["reconstruct"] + 5) * 16 * 16 * 8)
    monkeypatch.setattr(memory, "WHOLE_BYTES", 6 * 16 * 16 * 8 - 1)
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1)
    _, [report], _ = update(weight, gram, "2:4", "reconstruct", axes=axes)
    assert report.error.code == "insufficient_memory"
    assert f"needs {needed} bytes" in report.error.message
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    _, [report], _ = update(weight, gram, "2:4", "reconstruct", axes=axes)
    assert report.error is None


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("0::/", "memory.max memory.current"),
        ("0::/system.slice/worker.service", "memory.max memory.current"),
        ("4:cpu,memory:/unit", "memory.limit_in_bytes memory.usage_in_bytes"),
    ],
)
@pytest.mark.parametrize("depth", [0, 1], ids=["its group", "the group around it"])
def test_what_a_process_may_take_is_the_least_of_machine_group_and_limit(tmp_path, monkeypatch, group, names, depth):
    (tmp_path / "meminfo").write_text("MemTotal:  900 kB\nMemAvailable:  500 kB\n")
    (tmp_path / "statm").write_text("10 5 3 1 0 2 0\n")
    (tmp_path / "own").write_text(f"7:pids:/elsewhere\n{group}\n")
    root = tmp_path / "groups" / ("" if group.startswith("0") else "memory")
    own = root / group.rpartition(":/")[2]
    folder = own if own == root or depth == 0 else own.parent
    folder.mkdir(parents=True)
    limit, used = (folder / name for name in names.split())
    used.write_text("100000\n")
    (folder / "memory.stat").write_text("anon 60000\nfile 40000\ninactive_file 30000\n")
    monkeypatch.setattr(memory, "MEMORY_INFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_STATM", tmp_path / "statm")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "CGROUP_ROOT", tmp_path / "groups")
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    limit.write_text("max\n")
    assert memory.available_bytes() == 500 * 1024
    limit.write_text("150000\n")
    assert memory.available_bytes() == 80_000
    (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 20000\n")
    assert memory.available_bytes() == 70_000
    monkeypatch.setattr(resource, "getrlimit", lambda what: (10 * resource.getpagesize() + 7, 0))
    assert memory.available_bytes() == 7
    limit.write_text("1\n")
    assert memory.available_bytes() == 0
