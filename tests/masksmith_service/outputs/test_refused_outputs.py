"""What no output can be is named before anything is queued, and leaves no mark."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from starlette.testclient import TestClient
from support.output_jobs import MASKED, check_output, document, submit, work

from masksmith_service.app import create_app
from masksmith_service.references import outputs
from masksmith_state.errors import FullError
from masksmith_state.jobs.records import JobRecords
from masksmith_state.jobs.redis_keys import output_lock_key
from masksmith_state.keys import Keys, Role
from masksmith_state.roots.setting import RootSetting
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME, RECORD_NAME


@pytest.mark.parametrize("state", ["unfinished", "finished"])
def test_the_output_of_another_command_is_refused(app, runner, root, model, url, state, records):
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        if state == "finished":
            work(runner, job)
        before = {name: root.stat(f"out/{name}") for name in root.list("out")}
        for more in ({"pattern": "1:4"}, {"scores": "magnitude power=2"}):
            problem = client.post("/v1/jobs", json=document(model, f"{url}/out", **more)).json()
            assert (problem["status"], problem["code"]) == (409, "output_not_empty")
            assert "another job or command" in problem["detail"]
        assert {name: root.stat(f"out/{name}") for name in root.list("out")} == before


@pytest.mark.parametrize(("name", "limit"), [(JOURNAL_NAME, "MAX_MARKER_BYTES"), (RECORD_NAME, "MAX_RECORD_BYTES")])
def test_files_of_another_command_may_have_any_size(app, root, model, url, monkeypatch, name, limit):
    monkeypatch.setattr(outputs, limit, 64)
    root.write(f"out/{name}", [b'{"identity": "x"}\n', b'{"tensor": "a"}\n' * 8])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert (problem["status"], problem["code"]) == (409, "output_not_empty")
    assert "another job or command" in problem["detail"]


def test_a_marker_that_is_nested_too_deeply_is_of_another_command(app, root, model, url):
    root.write(f"out/{JOURNAL_NAME}", [b"[" * 10_000])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert (problem["status"], problem["code"]) == (409, "output_not_empty")
    assert "another job or command" in problem["detail"]


def test_a_directory_with_something_else_is_refused(app, root, model, url, records):
    root.write("out/thesis.tex", [b"1"])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert (problem["status"], problem["code"]) == (409, "output_not_empty")
    assert "other files, such as 'thesis.tex'" in problem["detail"]
    assert list(root.list("out")) == ["thesis.tex"]
    assert records.live_count() == 0


@pytest.mark.parametrize("url", ["directory"], indirect=True)
@pytest.mark.parametrize(
    "name",
    [
        "m-2.safetensors", ".masksmith-done.m-2.safetensors.json", MASKS_NAME, RECORD_NAME,
        "model.safetensors.index.json", "tokenizer/merges.txt",
    ],
)  # fmt: skip
def test_an_empty_directory_in_the_place_of_a_file_is_refused_before_the_job_is_created(
    app, root, model, url, records, name
):
    folder = Path(url, "out", name)
    folder.mkdir(parents=True)
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
        assert (problem["status"], problem["code"]) == (409, "output_not_empty")
        assert f"'{folder}': it is a directory in place of a file; remove it" in problem["detail"]
        assert root.list("out") == {}
        assert records.live_count() == 0
        folder.rmdir()
        submit(client, model, f"{url}/out")


@pytest.mark.parametrize("url", ["directory"], indirect=True)
def test_a_link_in_the_place_of_a_directory_of_the_output_is_refused(app, root, model, url, records, tmp_path):
    Path(url, "out").mkdir()
    Path(url, "out", "tokenizer").symlink_to(tmp_path)
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert (problem["status"], problem["code"]) == (409, "output_not_empty")
    assert "tokenizer/merges.txt': its path contains a link" in problem["detail"]
    assert records.live_count() == 0


@pytest.mark.parametrize(
    ("output", "more", "code", "reason"),
    [
        ("{url}", {}, "invalid_output", "a root itself"),
        ("{url}/model", {}, "invalid_output", "overlaps with the model"),
        ("{url}/model/out", {}, "invalid_output", "overlaps with the model"),
        ("{url}/out", {"time_limit_s": 5}, "invalid_output", "time_limit_s"),
        ("/elsewhere/out", {}, "root_not_found", "that you may write"),
        ("{url}/../out", {}, "invalid_reference", "its part '..'"),
    ],
)
def test_an_impossible_output_is_rejected_at_submission(app, model, url, output, more, code, reason, records):
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, output.format(url=url), **more)).json()
    assert problem["code"] == code, problem
    assert reason in problem["detail"]
    assert records.live_count() == 0


def test_tensors_of_another_model_are_refused(app, root, model, url, tmp_path):
    root.write("other/m-1.safetensors", [(tmp_path / "m-1.safetensors").read_bytes()])
    given = document(model, f"{url}/out")
    given["tensors"][0]["reference"] = f"{url}/other/m-1.safetensors"
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=given).json()
    assert problem["code"] == "invalid_output"
    assert repr(MASKED[0]) in problem["detail"]
    assert root.list("out") == {}


def test_a_quantised_model_is_refused(app, root, model, url):
    root.write("model/config.json", [b'{"quantization_config": {"quant_method": "gptq"}}'])
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert problem["code"] == "invalid_output"
    assert "quantised" in problem["detail"]


@pytest.mark.parametrize("url", ["bucket"], indirect=True)
def test_a_file_that_is_too_large_for_an_object_is_rejected_at_submission(app, root, model, url, monkeypatch):
    monkeypatch.setattr("masksmith_service.references.outputs.MAX_OBJECT_BYTES", 1000)
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert problem["code"] == "invalid_output"
    assert "'m-1.safetensors' has more than the 1000 bytes" in problem["detail"]


def test_only_keys_with_the_right_may_write(app, records, root, model, url):
    keys = Keys(records.redis)
    tokens = {name: keys.create(name, Role.USER)[1] for name in ("ann", "bob")}
    with TestClient(app) as client:
        ann, bob = ({"Authorization": f"Bearer {token}"} for token in tokens.values())
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out"), headers=ann).json()
        assert (problem["status"], problem["code"]) == (403, "forbidden")
        assert "key 'ann' may not write the root" in problem["detail"]
        assert root.list("out") == {}
        submit(client, model, f"{url}/out", headers=bob)


def test_no_file_is_copied_from_or_into_an_inner_root(settings, records, root, model, url):
    inner = [
        RootSetting(url=f"{url}/{path}", read=["bob"], write=["bob"]) for path in ("model/secret", "out/tokenizer")
    ]
    root.write("model/secret/bobs.json", [b"secret"])
    settings = settings.model_copy(update={"roots": [*settings.roots, *inner]})
    with TestClient(create_app(settings)) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
        assert problem["code"] == "invalid_output"
        assert f"'tokenizer/merges.txt' would be in {url}/out/tokenizer" in problem["detail"]
        assert root.list("out") == {}
        planned = records.read(submit(client, model, f"{url}/other")).plan.output
    assert "secret/bobs.json" not in [*(file.name for file in planned.copied_files), *planned.names_not_copied]


def test_a_name_that_no_directory_allows_is_refused(app, root, model, url, monkeypatch):
    monkeypatch.setattr(outputs, "MAX_NAME_BYTES", 14)
    with TestClient(app) as client:
        response = client.post("/v1/jobs", json=document(model, f"{url}/out"))
    if url.startswith("s3://"):
        assert response.status_code == 202
        return
    assert (response.status_code, response.json()["code"]) == (422, "invalid_output")
    assert "its file 'm-1.safetensors'... would have a name of 15 bytes" in response.json()["detail"]
    assert root.list("out") == {}


def test_a_job_that_is_refused_leaves_no_mark(settings, root, model, url):
    with TestClient(create_app(settings.model_copy(update={"max_live_jobs": 1}))) as client:
        submit(client, model, f"{url}/out")
        problem = client.post("/v1/jobs", json=document(model, f"{url}/other")).json()
        assert problem["code"] == "too_many_jobs"
    assert root.list("other") == {}


def test_a_refused_request_leaves_the_mark_of_one_that_is_equal(app, runner, root, model, url, tmp_path, monkeypatch):
    """Both claim the output, the second while the first is being recorded; the first one is refused then."""
    create, entered, answered = JobRecords.create, threading.Event(), threading.Event()

    def slow(self, *arguments):
        if entered.is_set():
            return create(self, *arguments)
        entered.set()
        answered.wait(1.0)
        raise FullError("jobs", 1)

    monkeypatch.setattr(JobRecords, "create", slow)
    monkeypatch.setattr(outputs, "LOCK_WAIT_S", 300.0)
    with TestClient(app) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/v1/jobs", json=document(model, f"{url}/out"))
        assert entered.wait(300)
        second = pool.submit(submit, client, model, f"{url}/out")
        second.add_done_callback(lambda _: answered.set())
        assert first.result().json()["code"] == "too_many_jobs"
        job = second.result()
        assert list(root.list("out")) == [JOURNAL_NAME]
        work(runner, job)
    check_output(root, tmp_path)


def test_a_request_does_not_wait_long_for_others_to_the_same_output(app, records, model, url, monkeypatch):
    monkeypatch.setattr(outputs, "LOCK_WAIT_S", 0.1)
    with TestClient(app) as client, records.redis.lock(output_lock_key(f"{url}/out"), timeout=60):
        response = client.post("/v1/jobs", json=document(model, f"{url}/out"))
        submit(client, model, f"{url}/other")
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert f"{url}/out" in response.json()["detail"]


def test_the_lock_of_a_dead_service_expires_also_if_the_clock_is_set_back(app, records, model, url, monkeypatch):
    monkeypatch.setattr(outputs, "LOCK_WAIT_S", 0.1)
    key = output_lock_key(f"{url}/out")
    records.redis.set(key, "dead", ex=3720)
    with TestClient(app) as client:
        assert client.post("/v1/jobs", json=document(model, f"{url}/out")).status_code == 503
    assert 0 < records.redis.ttl(key) <= outputs.LOCK_TIMEOUT_S


def test_a_mark_stays_if_the_broker_does_not_say_whether_the_job_is_recorded(app, root, model, url, monkeypatch):
    def lost(self, *arguments):
        raise redis.ConnectionError("the answer was lost")

    monkeypatch.setattr(JobRecords, "create", lost)
    with TestClient(app) as client:
        assert client.post("/v1/jobs", json=document(model, f"{url}/out")).json()["code"] == "broker_unavailable"
    assert list(root.list("out")) == [JOURNAL_NAME]
