"""Weights by reference: the library's masks, from no more bytes than are needed, of one version of the file."""

import os
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.shards import TRANSPOSABLE, mask_of, run_all, specified

import masksmith as ms
from masksmith_state.errors import ChangedSourceError
from masksmith_state.jobs.outputs import OutputFile, PlannedOutput
from masksmith_state.jobs.plans import MasksPlan
from masksmith_state.jobs.shards import PlannedTensor, Source, cut
from masksmith_state.roots.roots import Roots
from masksmith_state.roots.setting import RootSetting
from masksmith_wire.errors import Code
from masksmith_wire.headers import read_header
from masksmith_wire.output_names import JOURNAL_NAME, RECORD_NAME
from masksmith_worker.output import work
from masksmith_worker.stages.load import InputReader

WEIGHTS = {
    name: np.random.default_rng(seed).standard_normal((32, 48)).astype(np.float32) for seed, name in enumerate("ab")
}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    save_file(WEIGHTS, root / "model.safetensors")
    return root


@pytest.fixture
def referring(runner_with, root):
    return runner_with(roots=Roots([RootSetting(url=str(root))]))


def source_of(path):
    status = os.stat(path)
    return Source(location=str(path), version=f"{status.st_size}-{status.st_mtime_ns}")


def planned(path, name, **more):
    with path.open("rb") as file:
        entry = read_header(file).tensors[name]
    return PlannedTensor(
        name=name, source=source_of(path), dtype=entry.dtype, shape=list(entry.shape), start=entry.start, **more
    )


def start(records, tensors, shard_bytes=16 * 48 * 4, **options):
    specification = specified(TRANSPOSABLE, **options)
    plan = MasksPlan(options=specification.options, tensors=tensors)
    return records.create(plan, cut(tensors, specification, shard_bytes))[0]


def test_masks_are_those_of_the_library(referring, records, root):
    job = start(records, [planned(root / "model.safetensors", name) for name in "ab"])
    assert set(run_all(referring, job)) == {"completed"}
    for number, name in enumerate("ab"):
        assert np.array_equal(mask_of(referring, job, number), ms.solve(ms.magnitude(WEIGHTS[name]), TRANSPOSABLE).mask)


def test_only_the_rows_of_a_shard_are_read(referring, records, root, monkeypatch):
    """The other rows are no longer there when they are read."""
    path = root / "model.safetensors"
    tensor = planned(path, "a")
    (_, directory, relative) = referring.roots.find(str(path))
    ranges = []
    read = type(directory).read
    monkeypatch.setattr(
        type(directory), "read", lambda self, path, start, stop, version: (
            ranges.append((path, start, stop)), read(self, path, start, stop, version)
        )[1],
    )  # fmt: skip
    job = start(records, [tensor])
    run_all(referring, job)
    half = 16 * 48 * 4
    assert sorted(ranges) == [
        (relative, tensor.start, tensor.start + half), (relative, tensor.start + half, tensor.start + 2 * half)
    ]  # fmt: skip


def test_a_file_that_changed_fails_its_tensors_by_name(referring, records, root):
    save_file({"c": WEIGHTS["a"]}, root / "other.safetensors")
    tensors = [planned(root / "model.safetensors", "a"), planned(root / "other.safetensors", "c")]
    job = start(records, tensors)
    changed = load_file(root / "model.safetensors")
    changed["a"] = changed["a"] + 1
    save_file(changed, root / "model.safetensors")
    os.utime(root / "model.safetensors", ns=(1, 1))
    run_all(referring, job)
    reports = records.reports(job)
    assert [report.error is None for report in reports.values()] == [False, False, True, True]
    assert reports[0].error.code == Code.REFERENCE_CHANGED
    assert reports[0].error.message.startswith("tensor 'a': ")
    assert "has changed since the job was submitted" in reports[0].error.message


def test_an_unchanged_file_is_not_solved_again_and_a_new_one_is(referring, records, root):
    path = root / "model.safetensors"
    first = start(records, [planned(path, "a")])
    run_all(referring, first)
    second = start(records, [planned(path, "a")])
    run_all(referring, second)
    assert [report.remembered for report in records.reports(second).values()] == [True, True]
    save_file({name: weight[::-1].copy() for name, weight in WEIGHTS.items()}, path)
    os.utime(path, ns=(5, 5))
    third = start(records, [planned(path, "a")])
    run_all(referring, third)
    assert [report.remembered for report in records.reports(third).values()] == [False, False]
    expected = ms.solve(ms.magnitude(WEIGHTS["a"][::-1].copy()), TRANSPOSABLE).mask
    assert np.array_equal(mask_of(referring, third), expected)


def test_a_worker_without_the_root_says_so(runner, records, root):
    job = start(records, [planned(root / "model.safetensors", "a")])
    run_all(runner, job)
    error = records.reports(job)[0].error
    assert error.code == Code.ROOT_NOT_FOUND
    assert "give it the same roots as the service" in error.message


def test_a_link_that_is_made_after_the_job_began_is_not_followed(referring, records, root, tmp_path):
    path = root / "model.safetensors"
    tensor = planned(path, "a")
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    job = start(records, [tensor])
    run_all(referring, job)
    error = records.reports(job)[0].error
    assert error.code == Code.INVALID_REFERENCE
    assert "leads outside the root" in error.message


def test_statistics_are_read_from_roots_too(referring, records, root):
    norms = np.random.default_rng(3).uniform(0.5, 2, 48)
    save_file({"a/norms": norms}, root / "statistics.safetensors")
    statistic = planned(root / "statistics.safetensors", "a/norms").model_copy(update={"name": "norms"})
    tensor = planned(root / "model.safetensors", "a", statistic=statistic)
    job = start(records, [tensor], scores="wanda")
    assert set(run_all(referring, job)) == {"completed"}
    scores = np.abs(WEIGHTS["a"]) * norms.astype(np.float32)
    kept = scores[mask_of(referring, job)].sum(dtype=np.float64)
    best = ms.solve(scores, TRANSPOSABLE)
    assert kept == pytest.approx(best.objective, rel=1e-6)


def test_a_gram_matrix_is_read_in_bands(referring, records, root, monkeypatch):
    inputs = np.random.default_rng(4).standard_normal((99, 48))
    save_file({"a/gram": inputs.T @ inputs}, root / "grams.safetensors")
    gram = planned(root / "grams.safetensors", "a/gram").model_copy(update={"name": "gram"})
    monkeypatch.setattr("masksmith.updates.gram_bands.BAND_BYTES", 48 * 8 * 5)
    sizes = []
    read = InputReader.source_bytes
    monkeypatch.setattr(
        InputReader, "source_bytes", lambda self, source, start, stop: (
            sizes.append(stop - start) if "grams" in source.location else None, read(self, source, start, stop)
        )[1],
    )  # fmt: skip
    job = start(records, [planned(root / "model.safetensors", "a", gram=gram)], update="reconstruct")
    assert set(run_all(referring, job)) == {"completed"}
    assert max(sizes) == 48 * 8 * 5
    reports = records.reports(job)
    expected = ms.reconstruct(WEIGHTS["a"], mask_of(referring, job), inputs.T @ inputs)
    error = sum(report.update.error for report in reports.values())
    assert error == pytest.approx(expected.error, rel=1e-9)


IDENTITY = "ab" * 32


def output_work(root, **members):
    output = PlannedOutput(location=str(root / "out"), identity=IDENTITY, files=[], **members)
    inputs = InputReader(store=None, roots=Roots([RootSetting(url=str(root))]))
    return work.OutputWork("", None, output, inputs, shards={}, results=None, check=lambda: None)


@pytest.mark.parametrize(
    ("text", "is_own"),
    [
        (f'{{"identity": "{IDENTITY}"}}\n and more', True),
        (f'{{"identity": "{IDENTITY}", "a": "{"a" * 2**16}"}}', False),
        (f'{{"identity": "{"0" * 64}"}}', False),
        ("{", False),
        ("[1]", False),
        ("[" * 60_000, False),
        (None, False),
    ],
)
def test_a_small_object_is_the_marker_of_an_output(root, text, is_own):
    (root / "out").mkdir()
    if text is not None:
        (root / "out" / JOURNAL_NAME).write_text(text)
    assert output_work(root).has_marker() == is_own


@pytest.mark.parametrize("tail", [f'"identity": "{IDENTITY}"}}', '"identity": "x"}'])
@pytest.mark.parametrize("name", [JOURNAL_NAME, RECORD_NAME])
def test_a_large_file_in_the_place_of_marker_or_record_is_not_parsed(root, name, tail):
    (root / "out").mkdir()
    size = (root / "out" / name).write_text('{"a": [' + "[]," * 2**18 + "0], " + tail)
    output = output_work(root)
    tracemalloc.start()
    is_own = output.has_marker() if name == JOURNAL_NAME else output.has_record()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert is_own == (name == RECORD_NAME and IDENTITY in tail)
    assert peak < 3 * size


@pytest.mark.parametrize(("bounds", "words"), [({"max_header_bytes": 100}, "max_header_bytes is 100"),
                                               ({"max_tensors": 10}, "more than 10 tensors")])  # fmt: skip
def test_a_header_beyond_the_bounds_of_the_submission_is_not_parsed(root, monkeypatch, bounds, words):
    entries = {f"{number}": np.zeros(1, np.uint8) for number in range(4000)}
    save_file(entries, root / "large.safetensors")
    file = OutputFile(
        name="large.safetensors",
        source=source_of(root / "large.safetensors"),
        bytes=(root / "large.safetensors").stat().st_size,
    )
    assert len(output_work(root).header(file).tensors) == 4000
    monkeypatch.setattr(work, "parse_header", None)
    with pytest.raises(ChangedSourceError, match=words):
        output_work(root, **bounds).header(file)


def test_a_header_that_is_no_longer_valid_has_changed(root):
    path = root / "model.safetensors"
    status = path.stat()
    file = OutputFile(name="model.safetensors", source=source_of(path), bytes=status.st_size)
    path.write_bytes(path.read_bytes().replace(b"F32", b"F16", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ChangedSourceError, match="its shape needs"):
        output_work(root).header(file)
