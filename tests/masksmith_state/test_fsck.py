"""`masksmith fsck` names what is damaged, and changes nothing unless it is told to repair."""

import json
import re
from pathlib import Path

import pytest
from blake3 import blake3
from obstore.exceptions import GenericError

from masksmith_state.blobs.names import (
    piece_list_name,
    result_name,
    result_report_name,
    statistic_name,
    upload_name,
    weights_name,
)
from masksmith_state.blobs.objects import Objects
from masksmith_state.fsck import main
from masksmith_state.installation import Installation
from masksmith_state.jobs.reports import ShardReport

DATA = bytes(range(256)) * 5000
KEY = "ab" * 32
PLAIN = (upload_name(blake3(DATA).hexdigest()), result_name(KEY), weights_name(KEY))
SEALED = (result_report_name(KEY), statistic_name(KEY))


@pytest.fixture
def full(records, store, monkeypatch):
    Installation(records.redis, store).claim()
    for name in PLAIN:
        store.put(name, DATA)
    for name in SEALED:
        store.put_sealed(name, DATA)
    monkeypatch.setenv("MASKSMITH_STORE_URL", store.url)
    monkeypatch.setattr("masksmith_state.settings.StateSettings.configure_logging", lambda self: None)
    monkeypatch.setattr("masksmith_state.fsck.protect_files", lambda: None)
    return Path(store.url)


def tree(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_intact_store(full, capsys):
    assert main([]) == 0
    assert "5 blob(s) checked, 0 damaged" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*PLAIN, *SEALED])
def test_a_damaged_blob_of_any_kind_is_named_and_set_aside(full, capsys, name):
    path = full / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = tree(full)
    assert main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damaged"] == [name]
    assert tree(full) == before
    assert main(["--repair"]) == 1
    assert f"damaged, set aside: {name}" in capsys.readouterr().out
    assert not path.exists()
    assert main([]) == 0


def test_a_lost_list_of_an_upload_is_written_again(full, capsys):
    (full / piece_list_name(PLAIN[0])).unlink()
    before = tree(full)
    assert main([]) == 0
    assert tree(full) == before
    assert main(["--repair"]) == 0
    assert (full / piece_list_name(PLAIN[0])).exists()


@pytest.mark.parametrize("name", PLAIN[1:])
def test_a_lost_list_of_a_result_is_computed_from_the_digest_in_its_report(full, store, capsys, name):
    digest = blake3(DATA).hexdigest()
    report = ShardReport(result=KEY, mask_digest=digest, weights_digest=digest)
    store.put_sealed(SEALED[0], report.model_dump_json().encode())
    (full / piece_list_name(name)).unlink()
    before = tree(full)
    assert main([]) == 0
    assert tree(full) == before
    assert main(["--repair"]) == 0
    assert (full / piece_list_name(name)).exists()
    (full / piece_list_name(name)).unlink()
    (full / name).write_bytes(DATA[:-1] + b"?")
    assert main(["--repair", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["damaged"] == [name]
    assert not (full / name).exists()


def test_a_result_without_list_and_report_cannot_be_checked_and_stays(full, capsys):
    (full / piece_list_name(PLAIN[1])).unlink()
    before = tree(full)
    assert main(["--repair", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["checked"], report["damaged"], report["unchecked"]) == (4, [], [PLAIN[1]])
    assert tree(full) == before
    assert main([]) == 1
    assert f"cannot be checked, since the list of its pieces' digests is lost: {PLAIN[1]}" in capsys.readouterr().out


@pytest.mark.parametrize("name", PLAIN[1:])
def test_a_result_that_is_not_the_one_in_its_report_is_named_and_stays(full, store, capsys, name):
    """Another worker may be about to write its report, or a worker on another processor has written the same result."""
    other = blake3(b"other").hexdigest()
    report = ShardReport(result=KEY, mask_digest=blake3(DATA).hexdigest(), weights_digest=blake3(DATA).hexdigest())
    member = "mask_digest" if name == result_name(KEY) else "weights_digest"
    store.put_sealed(SEALED[0], report.model_copy(update={member: other}).model_dump_json().encode())
    before = tree(full)
    assert main(["--repair", "--json"]) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["checked"], outcome["damaged"], outcome["replaced"]) == (5, [], [name])
    assert tree(full) == before
    assert main([]) == 0
    assert f"intact, but its digest is not the one in the result's report: {name}" in capsys.readouterr().out


def test_foreign_files_are_listed_and_not_changed(full, capsys):
    other = full / "tensors" / "thesis.txt"
    other.write_text("precious")
    assert main(["--repair"]) == 0
    assert "not written by masksmith: tensors/thesis.txt" in capsys.readouterr().out
    assert other.read_text() == "precious"


def test_a_directory_that_is_no_store_is_rejected(tmp_path, full, monkeypatch, capsys):
    monkeypatch.setenv("MASKSMITH_STORE_URL", str(tmp_path))
    assert main([]) == 2
    assert re.match("masksmith: .* is not a store", capsys.readouterr().err)
    monkeypatch.setenv("MASKSMITH_STORE_URL", str(tmp_path / "nowhere"))
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("masksmith: the store cannot be read: ")


def test_a_blob_that_the_store_fails_to_read_is_named_and_the_others_are_checked(full, monkeypatch, capsys):
    """As a file on a bad sector of a disk."""
    read, damaged = Objects.get_ranges, full / PLAIN[2]

    def get_ranges(objects, name, starts, stops):
        if name == PLAIN[1]:
            raise GenericError("Input/output error (os error 5)")
        return read(objects, name, starts, stops)

    monkeypatch.setattr(Objects, "get_ranges", get_ranges)
    damaged.write_bytes(b"?" + damaged.read_bytes()[1:])
    before = tree(full)
    assert main(["--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["checked"], report["damaged"], report["unreadable"]) == (4, [PLAIN[2]], [PLAIN[1]])
    assert tree(full) == before
    assert main(["--repair"]) == 2
    assert f"cannot be read: {PLAIN[1]}" in capsys.readouterr().out
    assert (full / PLAIN[1]).exists()
