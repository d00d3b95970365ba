"""Ids from addresses are checked before they become part of a name in the broker or the store."""

import pytest

from masksmith_state.jobs.redis_keys import is_job_id

PARTS = [":shards", ":reports", ":pending", ":events", ":queued", ":lease:0", ":results", ":attempts"]
WRONG = [
    "x",
    "0" * 26,
    "0" * 28,
    "0" * 26 + "G",
    "0" * 26 + "A",
    "\u0660" * 27,
    "0" * 27 + "%0A",
    "*",
    "..",
    "%2e%2e%2fkeys",
    "a%00b",
]
JOB_PATHS = ["", "/masks", "/weights", "/events", "/window?tensor=w", "/profile?tensor=w", "/benchmark"]


@pytest.fixture
def named(client, app, monkeypatch):
    """The commands that are sent to the broker while an address is called; gives the answer, too."""

    def named(method, path, **options):
        commands = []
        state = app.state.masksmith
        for pool in (state.records.redis.connection_pool, state.async_redis.connection_pool):
            pack = pool.connection_class.pack_command if hasattr(pool.connection_class, "pack_command") else None
            assert pack is not None

            def recording(self, *args, pack=pack):
                commands.append(args)
                return pack(self, *args)

            monkeypatch.setattr(pool.connection_class, "pack_command", recording)
        answer = client.request(method, path, **options)
        monkeypatch.undo()
        return answer, commands

    return named


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("path", JOB_PATHS)
def test_a_key_below_a_record_is_not_a_job(client, submit, part, path):
    job = submit()["id"]
    assert client.get(f"/v1/jobs/{job}{part}{path}").status_code == 404


def test_a_text_with_the_form_of_an_id_is_looked_up(named):
    answer, commands = named("GET", f"/v1/jobs/{'0' * 27}")
    assert answer.status_code == 404
    assert [command for command in commands if f"masksmith:job:{'0' * 27}" in command]


@pytest.mark.parametrize("job", WRONG)
def test_other_texts_are_not_looked_up(named, job):
    # A path with a control character is no path at all.
    refused = (400,) if "%0" in job else (404, 405)
    for method, path in [("GET", path) for path in JOB_PATHS] + [("POST", "/cancel"), ("DELETE", "")]:
        answer, commands = named(method, f"/v1/jobs/{job}{path}")
        assert answer.status_code in refused, (method, path)
        assert not [command for command in commands if "masksmith:job:" in str(command)]
    answer, commands = named("DELETE", f"/v1/keys/{job}")
    assert answer.status_code in refused
    assert not [command for command in commands if "masksmith:key:" in str(command)]
    answer, commands = named("DELETE", f"/v1/tensors/{job}")
    assert answer.status_code in (400, 404, 405)
    assert not [command for command in commands if "masksmith:upload:" in str(command)]


def test_ids_in_documents_are_checked_too(client, submit, good):
    job = submit()["id"]
    options = {"pattern": "2:4", "previous": f"{job}:shards"}
    assert client.post("/v1/masks", params=options, content=good).status_code in (404, 422)
    document = {"kind": "benchmark", "masks_of": f"{job}:shards"}
    assert client.post("/v1/jobs", json=document).status_code in (404, 422)


def test_the_ids_that_are_made_are_ids(submit):
    assert is_job_id(submit()["id"])
    assert not any(map(is_job_id, WRONG))
