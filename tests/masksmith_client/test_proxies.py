"""Proxies of the environment that cannot be used are one line of error, without their passwords."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from masksmith_client import AsyncClient, Client, ConnectError, InputError, RetryPolicy
from masksmith_client.cli.app import run
from masksmith_client.transport.http import environment_errors_as_input_errors

URL = "http://service.example:8000"
PROXIES = ["socks://127.0.0.1:1080", "ftp://user:secret@127.0.0.1:21", "http://127.0.0.1:port", "http://[::1", "://x"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTPS_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:1080", "ftp://user:secret@127.0.0.1:21"])
def test_a_scheme_that_is_no_proxy_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: type[Client], variable: str, proxy: str
) -> None:
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(InputError, match=variable) as refused:
        client(URL)
    assert "secret" not in str(refused.value)


def test_a_socks_proxy_says_which_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@127.0.0.1:1080")
    with pytest.raises(InputError, match="pip install socksio") as refused:
        Client(URL)
    assert "secret" not in str(refused.value)


def test_only_what_names_a_proxy_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "other.example")
    monkeypatch.setattr("httpx2._utils.getproxies", lambda: {"http": "ftp://127.0.0.1:21"})  # As macOS's settings.
    with pytest.raises(InputError, match=r"the proxy in the system's settings cannot be used: .*; or set NO_PROXY=\*$"):
        Client(URL)
    monkeypatch.setenv("HTTP_PROXY", "ftp://127.0.0.1:21")
    with pytest.raises(InputError, match=r"the proxy that HTTP_PROXY names cannot be used: .*; or unset the variable$"):
        Client(URL)


@pytest.mark.parametrize("proxy", PROXIES)
def test_the_command_line_prints_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    assert run(["info", "--url", URL]) in (2, 3, 4)
    printed = capsys.readouterr().err
    assert printed.startswith("masksmith: ")
    assert len(printed.splitlines()) == 1
    assert "secret" not in printed


@pytest.mark.parametrize(
    ("variables", "url", "named"),
    [
        ({"HTTP_PROXY": "http://u:secret@127.0.0.1:1"}, URL, "HTTP_PROXY"),
        ({"http_proxy": "127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:2"}, URL, "http_proxy"),
        ({"HTTP_PROXY": "http://u:secret@[bad"}, URL, "HTTP_PROXY"),
        ({"ALL_PROXY": "http://127.0.0.1:1"}, "https://service.example", "ALL_PROXY"),
        ({"HTTP_PROXY": "http://127.0.0.1:1"}, "http://127.0.0.1:1", None),
        ({"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "service.invalid"}, "http://service.invalid", None),
    ],
)
def test_a_proxy_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, named: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with Client(url, retry=RetryPolicy(retries=0)) as client, pytest.raises(ConnectError) as failed:
        client.jobs.get("j")
    message = str(failed.value)
    assert message.startswith(f"no masksmith service answers at {url}")
    assert (f"through the proxy that {named} names" in message) == (named is not None)
    assert ("proxy" in message) == (named is not None)
    assert "secret" not in message


@pytest.mark.parametrize("client", [Client, AsyncClient])
@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize("url", ["https://service.example", "https://localhost:8443"])
def test_certificates_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: type[Client], content: str | None, url: str
) -> None:
    path = tmp_path / "authority.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(InputError, match=r"the certificates of SSL_CERT_FILE='.*authority\.pem' cannot be read"):
        client(url)


def test_unreadable_certificates_of_the_machine_are_no_fault_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with (
        pytest.raises(InputError, match=r"^the certificates of this machine cannot be read: Input/output error$"),
        environment_errors_as_input_errors(),
    ):
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("token", ["sécret", "sec\nret", "sec ret", "secret\x00"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    if "\x00" not in token:  # no variable can hold it
        monkeypatch.setenv("MASKSMITH_TOKEN", token)
        assert run(["info", "--url", URL]) == 2
        assert capsys.readouterr().err.startswith("masksmith: the token (MASKSMITH_TOKEN, or the argument) has the")
    with pytest.raises(InputError, match=r"the token .* has the character '.*', which no key has") as refused:
        Client(URL, token)
    assert "ret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://{'a' * 64}.example", "over 63 letters"),
        ("http://service..example", "empty part"),
        ("http://service:65536", "port 65536, which is not from 0 to 65535"),
    ],
)
def test_addresses_that_no_host_can_have_are_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Client(url)
    Client("http://service.example.").close()
    Client("http://[::1]:65535").close()


def test_a_service_on_this_machine_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:1080")
    Client("http://127.0.0.1:8000").close()


@pytest.mark.parametrize(
    "command", [["jobs", "show", "\udcff"], ["jobs", "list", "--name", "\udcff"], ["info", "--url", f"{URL}/\udcff"]]
)
def test_arguments_that_are_not_unicode_are_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    # Python reads bytes of an argument that are not UTF-8 as such characters.
    assert run(command) == 2
    printed = capsys.readouterr().err
    assert "\\udcff" in printed
    assert "not Unicode text" in printed


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_only_clients_that_may_use_tls_read_certificates(monkeypatch: pytest.MonkeyPatch, client: type[Client]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("certificates are read")

    monkeypatch.setattr("httpcore2.default_ssl_context", refuse)
    for url in ("http://127.0.0.1:8000", "http://localhost:8000/prefix"):
        client(url)
    for url in ("https://127.0.0.1:8000", "HTTPS://localhost", "http://service.example"):
        with pytest.raises(InputError, match="certificates"):
            client(url)
