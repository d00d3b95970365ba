"""What strangers wrote is escaped at every door, and credentials in a URL are shown nowhere."""

from __future__ import annotations

import ast
import logging
import traceback
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save_file

import masksmith_client.cli
from masksmith_client import AsyncClient, Client, ClientError, InputError
from masksmith_client.cli import service
from masksmith_client.cli.app import run
from masksmith_client.transport.retry import RetryPolicy
from masksmith_client.transport.settings import read_settings

NAMES = [
    "a\x1b]0;owned\x07.weight",
    "b\x9b31m.weight",
    "c\nforged: line.weight",
    "d\u202efdp.weight",
    "e\x1b]52;c;aGk=\x07.bias",
]
URL = "http://ann:SECRET@127.0.0.1:1/prefix"
ONE_TRY = RetryPolicy(retries=0, first_contact_retries=0)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A checkpoint as a stranger may offer it."""
    arrays = {name: np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32) for name in NAMES}
    save_file(arrays, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def check(captured: Any) -> str:
    text = captured.out + captured.err
    for line in text.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("forged")
    return str(text)


def test_no_command_prints_what_a_terminal_obeys(hostile: Path, tmp_path: Path, capsys: Any) -> None:
    masks, other = tmp_path / "masks.safetensors", tmp_path / "other.safetensors"
    solve = ["solve", str(hostile), "-p", "2:4", "--local"]
    commands = [
        ["inspect", str(hostile)],
        [*solve, "-o", str(masks)],
        [*solve, "-o", str(other), "--exclude", "a*"],
        ["verify", str(masks)],
        ["verify", str(hostile), "-p", "2:4"],
        ["verify", str(hostile), "--masks", str(masks)],
        ["diff", str(masks), str(other)],
        ["apply", str(masks), str(hostile), "-o", str(tmp_path / "pruned.safetensors")],
        ["solve", str(hostile), "-p", "2:4", "--local", "-o", str(masks), "--layers", "nothing\x1b[31m"],
        ["inspect", str(tmp_path / "no\x1b[31mfile")],
    ]
    shown = ""
    for command in commands:
        run(command)
        shown += check(capsys.readouterr())
    assert r"\x1b]0;owned\x07" in shown
    assert r"\u202e" in shown
    assert r"c\nforged" in shown


def test_a_message_of_a_server_is_escaped(capsys: Any, monkeypatch: Any) -> None:
    detail = "no job \x1b]0;owned\x07\nforged: line"
    problem = {"title": "x", "status": 404, "code": "job_not_found", "detail": detail}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(404, json=problem))
    monkeypatch.setattr(service, "Client", lambda url=None, **_: Client(URL, retry=ONE_TRY, transport=transport))
    assert run(["jobs", "list"]) == 2
    assert "owned" in check(capsys.readouterr())


def test_all_output_of_the_command_line_goes_through_one_module() -> None:
    for path in Path(masksmith_client.cli.__file__).parent.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printing = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        # Before the command line's dependencies are there, and its own help and version.
        allowed = {"console.py": 99, "__init__.py": 1, "app.py": 2}.get(path.name, 0)
        assert len(printing) <= allowed, path.name
        assert not any(isinstance(call, ast.Attribute) and call.attr in ("echo", "secho") for call in calls), path.name


def answer(status: int, content: bytes = b"<html>") -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda request: httpx2.Response(status, content=content))


def fail(kind: type[httpx2.RequestError]) -> httpx2.MockTransport:
    def handle(request: httpx2.Request) -> httpx2.Response:
        raise kind(f"cannot reach {URL}", request=request)

    return httpx2.MockTransport(handle)


TRANSPORTS = {
    "nothing listens": None,
    "not a service": answer(200),
    "a proxy refuses": answer(407),
    "an error page": answer(404),
    "a redirect": answer(302),
    "a server error": answer(500),
    "a lost connection": fail(httpx2.ReadError),
    "no connection": fail(httpx2.ConnectError),
    "a timeout": fail(httpx2.ReadTimeout),
    "a proxy error": fail(httpx2.ProxyError),
}


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS)
def test_no_error_shows_the_credentials(transport: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    with Client(URL, retry=ONE_TRY, transport=transport) as client, pytest.raises(ClientError) as caught:
        client.jobs.get("0" * 27)
    # The chained exception is part of what Python prints.
    assert "SECRET" not in str(caught.value) + repr(caught.value.args)
    if transport is None:
        assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    assert "SECRET" not in repr(client.configuration) + client.url + repr(vars(client))
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        *["ftp://u:SECRET@host", "http://u:SECRET@", "http://u:SECRET@host:port", "http://u:SECRET@[::1"],
        *["u:SECRET@host:8000", "//u:SECRET@host", "http:/u:SECRET@host", "http:u:SECRET@host"],
        *["http://u:SECRET#@host", "http://u:SECRET/@host", "http://u:SECRET?@host", "http://u:a@SECRET#@host"],
        *["http://host/?sig=SECRET", "http://host/?x=SECRET", "http://host/#access_token=SECRET"],
    ],
)
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_malformed_url_is_refused_without_its_credentials(client: Any, url: str, capsys: Any) -> None:
    with pytest.raises(InputError) as caught:
        client(url)
    assert "SECRET" not in str(caught.value)
    assert run(["info", "--url", url]) == 2
    assert "SECRET" not in check(capsys.readouterr())


@pytest.mark.parametrize("token", ["SECRET\nX-Role: admin", "SECRET\u00e9", "SECRET\x7f", "a SECRET", "\ud800SECRET"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str, monkeypatch: Any, capsys: Any) -> None:
    with pytest.raises(InputError) as caught:
        Client("http://host", token)
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    if token.isascii():
        monkeypatch.setenv("MASKSMITH_TOKEN", token)
        assert run(["info", "--url", "http://127.0.0.1:1"]) == 2
        assert "SECRET" not in check(capsys.readouterr())


def test_a_line_end_behind_a_token_is_left_out() -> None:
    assert read_settings("http://host", "msk_x\r\n").token == "msk_x"


def test_the_command_line_shows_no_credentials(capsys: Any) -> None:
    for command in (["info"], ["jobs", "list"], ["info", "--json"]):
        assert run([*command, "--url", URL]) != 0
        assert "SECRET" not in check(capsys.readouterr())


def test_the_credentials_are_sent(monkeypatch: Any) -> None:
    monkeypatch.delenv("MASKSMITH_TOKEN", raising=False)
    sent = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append((request.headers["authorization"], str(request.url)))
        return httpx2.Response(404)

    client = Client("http://ann:p%40ss@host/x", retry=ONE_TRY, transport=httpx2.MockTransport(handle))
    with client, pytest.raises(ClientError):
        client.jobs.get("j")
    assert sent == [("Basic YW5uOnBAc3M=", "http://host/x/v1/jobs/j")]
    settings = read_settings("http://ann:p%40ss@host/x")
    assert read_settings(settings.url_with_credentials) == settings
    assert "p@ss" not in repr(settings)


def test_a_password_beside_a_token_is_refused() -> None:
    with pytest.raises(InputError, match="only one"):
        Client(URL, "msk_token")
