"""The claim of an output's directory while others, who do not use the lock of the service, write into it."""

import pytest
from starlette.testclient import TestClient
from support.output_jobs import check_output, document, submit, work

from masksmith_service.references import outputs
from masksmith_wire.output_names import JOURNAL_NAME, MASKS_NAME


def call_before(monkeypatch, root, method, action):
    """Call `action` once, immediately before the next call of a method of the root on a path in the output."""
    original, pending = getattr(type(root), method), [action]

    def changed(self, path, *arguments):
        if pending and path.startswith("out"):
            pending.pop()()
        return original(self, path, *arguments)

    monkeypatch.setattr(type(root), method, changed)


@pytest.mark.parametrize("name", [JOURNAL_NAME, "thesis.tex", MASKS_NAME])
def test_what_is_written_between_check_and_claim_is_found(app, root, model, url, records, monkeypatch, name):
    call_before(monkeypatch, root, "create", lambda: root.write(f"out/{name}", [b'{"identity": "x"}\n']))
    with TestClient(app) as client:
        problem = client.post("/v1/jobs", json=document(model, f"{url}/out")).json()
    assert (problem["status"], problem["code"]) == (409, "output_not_empty")
    assert list(root.list("out")) == [name]
    assert root.get(f"out/{name}", 100) == b'{"identity": "x"}\n'
    assert records.live_count() == 0


def test_an_output_that_is_finished_while_it_is_submitted_again_is_taken(
    app, runner, root, model, url, monkeypatch, tmp_path
):
    with TestClient(app) as client:
        job = submit(client, model, f"{url}/out")
        call_before(monkeypatch, root, "get", lambda: work(runner, job))
        work(runner, submit(client, model, f"{url}/out"))
    check_output(root, tmp_path)


def test_a_directory_that_changes_at_every_look_is_refused(app, root, model, url, monkeypatch):
    def vanished(*arguments):
        raise FileNotFoundError

    root.write(f"out/{JOURNAL_NAME}", [b'{"identity": "x"}\n'])
    monkeypatch.setattr(outputs, "marker_identity", vanished)
    with TestClient(app) as client:
        response = client.post("/v1/jobs", json=document(model, f"{url}/out"))
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert response.headers["Retry-After"] == "5"
