"""`masksmith keys`, against real servers: one that it starts for a moment, one of a running `up`, one that is named."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from masksmith_client import Client, Unauthorized
from masksmith_client.cli.app import run
from masksmith_service.local.data_directory import requires_keys
from masksmith_service.local.supervisor import Supervisor
from masksmith_state import DATA_FORMAT
from masksmith_state.keys import Keys, Role

MASKSMITH = str(Path(sys.executable).parent / "masksmith")


@pytest.fixture
def named(valkey, records, monkeypatch):
    """A server that the environment names."""
    monkeypatch.setenv("MASKSMITH_REDIS_URL", valkey.url)
    return Keys(records.redis)


def run_json(capsys, *arguments):
    assert run(["keys", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_keys_of_a_server_that_is_named(named, capsys):
    made = run_json(capsys, "create", "ann", "--stored-bytes", "2G", "--live-jobs", "3", "--requests-s", "0.5")
    assert (made["name"], made["role"], made["stored_bytes"], made["live_jobs"]) == ("ann", "user", 2**31, 3)
    assert run_json(capsys, "list")[0]["id"] == made["id"]
    assert run(["keys", "list"]) == 0
    shown = capsys.readouterr().out
    assert "ann" in shown
    assert made["token"] not in shown
    assert run_json(capsys, "revoke", made["id"]) == {"id": made["id"], "revoked": True}
    assert named.get(made["id"]).revoked_at is not None


def test_the_token_alone_is_on_stdout(named, capsys):
    assert run(["keys", "create", "ops", "--role", "admin"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("msk_")
    assert out.count("\n") == 1
    assert out.strip() not in err
    assert "services of this Redis server require a key once one exists" in err
    assert named.all()[0].role is Role.ADMIN


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "ann", "--role", "root"], ["'root'", "user or admin"]),
        (["create", "a\nb"], ["name"]),
        (["create", "ann", "--stored-bytes", "much"], ["'much'", "500G"]),
        (["create", "ann", "--stored-bytes", "-1"], ["'-1'"]),
        (["create", "ann", "--requests-s", "0.0009"], ["0.0009", "0.001"]),
        (["create", "ann", "--requests-s", "inf"], ["1000000000"]),
        (["create", "ann", "--requests-s", "nan"], ["--requests-s"]),
        (["create", "ann", "--weight", "nan"], ["--weight"]),
        (["create", "ann", "--expires", "999999w"], ["'999999w'", "at most 36500d"]),
        (["create", "ann", "--expires", "36501d"], ["'36501d'", "at most 36500d"]),
        (["create", "ann", "--expires", "9999-12-31"], ["'9999-12-31'", "at most 36500d"]),
        (["revoke", "nobody"], ["'nobody'", "keys list"]),
        (["list", "--data", "x", "--redis-url", "redis://y"], ["give one"]),
        (["list", "--redis-url", "ftp://x"], ["--redis-url"]),
    ],
)
def test_an_invalid_option_is_one_line_and_exit_code_two(named, capsys, arguments, words):
    assert run(["keys", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert named.all() == []


def test_an_unreachable_server_is_reported(capsys, tmp_path):
    assert run(["keys", "list", "--redis-url", f"unix://{tmp_path}/none.sock"]) == 1
    assert "does not respond" in capsys.readouterr().err


def test_what_a_server_refuses_is_told_apart(valkey, records, capsys):
    def error_of(*arguments, url=valkey.url):
        assert run(["keys", *arguments, "--redis-url", url]) == 1
        return capsys.readouterr().err

    client = records.redis
    assert "refuses the user or password" in error_of("list", url=f"{valkey.url}?password=wrong&username=ann")
    client.set("masksmith:keys", "a text")
    assert "refuses a command; its database may be that of another program" in error_of("list")
    client.delete("masksmith:keys")
    client.config_set("maxmemory", 1)
    try:
        assert "is full; delete jobs, or increase its maxmemory" in error_of("create", "ann")
    finally:
        client.config_set("maxmemory", 0)


def test_an_up_without_keys_does_not_listen_beyond_loopback(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    assert run(["up", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert "masksmith keys create" in error
    assert "--insecure" in error


def test_an_up_refuses_an_unknown_setting_of_keys(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    monkeypatch.setenv("MASKSMITH_AUTH", "Required")
    # Without the check, the command would end at the address, which needs a key.
    assert run(["up", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data")]) == 2
    assert "MASKSMITH_AUTH='Required': required or none" in capsys.readouterr().err


def test_a_data_directory_may_begin_with_a_tilde(tmp_path, capsys, monkeypatch):
    """Shells pass it on in `--data=~/data`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    run_json(capsys, "create", "ann", "--data=~/data")
    assert requires_keys(tmp_path / "data")
    assert run(["keys", "list", "--data=~nobody-of-this-name/data"]) == 2
    assert "'~nobody-of-this-name/data': there is no such user" in capsys.readouterr().err


def test_a_token_is_printed_even_if_the_requirement_cannot_be_recorded(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    data = tmp_path / "data"
    (data / "auth").mkdir(parents=True)
    (data / "format").write_text(f"{DATA_FORMAT}\n")
    assert run(["keys", "create", "ann", "--data", str(data)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("msk_")
    assert "Is a directory" in err


def test_a_token_is_printed_even_if_the_server_of_the_command_cannot_be_stopped(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    options, stop = ["--data", str(tmp_path / "data"), "--json"], Supervisor.stop
    info = run_json(capsys, "create", "ann", "--data", str(tmp_path / "data"))

    def stop_and_fail(self):
        stop(self)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Supervisor, "stop", stop_and_fail)
    for command in (["create", "bob"], ["rotate", info["id"]]):
        assert run(["keys", *command, *options]) == 1
        out, err = capsys.readouterr()
        assert json.loads(out)["token"].startswith("msk_")
        assert "Input/output error" in err


class Up:
    def __init__(self, data, *options):
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKSMITH_")}
        self._process = subprocess.Popen(
            [MASKSMITH, "up", "--port", "0", "--workers", "1", "--no-bench", "--data", data, "--json", *options],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean,
        )  # fmt: skip
        self.url = json.loads(self._process.stdout.readline())["url"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        self._process.wait(240)
        self._process.stdout.close()


@pytest.mark.slow
def test_keys_are_managed_whether_up_runs_or_not(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("MASKSMITH_REDIS_URL", raising=False)
    data = tmp_path / "data"
    place = ("--data", str(data))
    ops = run_json(capsys, "create", "ops", "--role", "admin", *place)
    with Up(data, "--log-format", "json") as up:
        ann = run_json(capsys, "create", "ann", *place)
        assert [key["name"] for key in run_json(capsys, "list", *place)] == ["ops", "ann"]
        with Client(up.url) as nobody, pytest.raises(Unauthorized, match="MASKSMITH_TOKEN"):
            list(nobody.jobs.list())
        with Client(up.url, token=ann["token"]) as client:
            assert list(client.jobs.list()) == []
            assert (client.info().ready, client.info().workers) == (True, [])
        with Client(up.url, token=ops["token"]) as client:
            assert len(client.info().workers) == 1
        run_json(capsys, "revoke", ann["id"], *place)
        bearer = {"Authorization": f"Bearer {ann['token']}"}
        assert httpx2.post(f"{up.url}/v1/jobs/x/cancel", headers=bearer).status_code == 401
    assert [key["revoked_at"] is None for key in run_json(capsys, "list", *place)] == [True, False]
    lines = [json.loads(line) for line in (data / "logs" / "service.log").read_text().splitlines()]
    (refused,) = [line for line in lines if line["logger"] == "masksmith_service.audit"]
    assert (refused["message"], refused["status"]) == ("POST /v1/jobs/x/cancel", 401)
    kept = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    for made in (ops, ann):
        assert made["id"].encode() in kept
        assert made["token"][15:].encode() not in kept


def test_a_key_with_scopes_and_an_end_is_made_and_rotated(named, capsys):
    made = run_json(capsys, "create", "ann", "--scope", "read", "--scope", "submit", "--expires", "90d")
    assert made["scopes"] == ["read", "submit"]
    assert 89 < (named.get(made["id"]).expires_at - named.get(made["id"]).created_at).days + 1 <= 91
    rotated = run_json(capsys, "rotate", made["id"], "--overlap", "12h", "--expires", "2099-01-31")
    assert rotated["id"] == made["id"]
    assert rotated["token"] != made["token"]
    assert rotated["expires_at"].startswith("2099-01-3")
    assert run(["keys", "list"]) == 0
    assert "read,submit" in capsys.readouterr().out
    assert run(["keys", "rotate", made["id"]]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("msk_")
    assert "24h" in err
    named.revoke(made["id"])
    assert run(["keys", "rotate", made["id"]]) == 2


def test_the_old_token_of_an_expired_key_is_not_called_valid(named, capsys):
    info, _ = named.create("ann", expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert run(["keys", "rotate", info.id, "--expires", "90d"]) == 0
    assert "the key had expired: its old token stays invalid" in capsys.readouterr().err
    assert run(["keys", "rotate", info.id]) == 0
    assert "the old token is valid for another 24h" in capsys.readouterr().err


def test_an_end_beyond_local_time_is_listed(named, capsys, monkeypatch):
    named.create("ann", expires_at=datetime(9999, 12, 31, 23, 30, tzinfo=UTC))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert run(["keys", "list"]) == 0
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "9999-12-31 23:30" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [["--scope", "fly"], ["--scope", "administer"], ["--role", "admin", "--scope", "read"], ["--expires", "soon"],
     ["--expires", "2020-01-01"], ["--expires", "0d"], ["--expires", "2099-99-01"], ["--expires", "-3d"]],
)  # fmt: skip
def test_scopes_and_ends_that_make_no_sense_are_refused(named, capsys, options):
    assert run(["keys", "create", "ann", *options]) == 2
    assert capsys.readouterr().out == ""
    assert named.all() == []
