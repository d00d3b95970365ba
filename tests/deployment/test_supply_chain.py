"""Pinning of base images against a registry on loopback, and the bill of materials of this environment."""

import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
resolve_images, sbom, audit, check_constraints = (
    import_module(name) for name in ("resolve_images", "sbom", "audit", "check_constraints")
)

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DIGESTS = {"/v2/library/python/manifests/3.11-slim": "a" * 64, "/v2/valkey/valkey/manifests/9-alpine": "b" * 64}


class Registry(BaseHTTPRequestHandler):
    """A registry that wants a token, as Docker Hub does."""

    answer = staticmethod(lambda path: f"sha256:{DIGESTS[path]}")

    def do_HEAD(self):
        is_known = self.headers.get("Authorization") == "Bearer pass"
        self.send_response(200 if is_known else 401)
        if is_known:
            self.send_header("Docker-Content-Digest", self.answer(self.path))
        else:
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.server.url}/token",service="s",scope="pull"')
        self.end_headers()

    def do_GET(self):
        assert self.path == "/token?service=s&scope=pull"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"token":"pass"}')

    def log_message(self, *_):
        pass


@pytest.fixture
def registry():
    server = HTTPServer(("127.0.0.1", 0), Registry)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.url
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    return tmp_path


def run(monkeypatch, copy, registry, *arguments):
    monkeypatch.setattr(sys, "argv", ["resolve_images", *arguments])
    return resolve_images.main(copy, registry)


def test_every_image_that_is_not_built_here_is_pinned(registry, copy, monkeypatch):
    assert run(monkeypatch, copy, registry, "--check") == 1
    assert (copy / "Dockerfile").read_text() == DOCKERFILE
    assert run(monkeypatch, copy, registry) == 0
    dockerfile, compose = (copy / "Dockerfile").read_text(), (copy / "docker-compose.yml").read_text()
    assert dockerfile.count(f"FROM python:${{PYTHON}}-slim@sha256:{'a' * 64} AS ") == DOCKERFILE.count("FROM python:")
    assert f"image: valkey/valkey:9-alpine@sha256:{'b' * 64}\n" in compose
    assert "image: masksmith-service\n" in compose
    assert run(monkeypatch, copy, registry, "--check") == 0
    # Pinning again takes the tag's present digest.
    assert run(monkeypatch, copy, registry) == 0
    assert (copy / "Dockerfile").read_text() == dockerfile


@pytest.mark.parametrize("answer", ["", "sha256:123", "latest"])
def test_nothing_but_a_digest_is_written(registry, copy, monkeypatch, capsys, answer):
    monkeypatch.setattr(Registry, "answer", staticmethod(lambda path: answer))
    assert run(monkeypatch, copy, registry) == 2
    assert "nothing is pinned" in capsys.readouterr().err
    assert (copy / "Dockerfile").read_text() == DOCKERFILE


@pytest.mark.parametrize("name", ["ghcr.io/a/b", "localhost/b", "localhost:5000/b", "registry.example.org:443/a/b"])
def test_an_image_of_another_registry_is_pinned_by_hand(registry, copy, monkeypatch, capsys, name):
    dockerfile = f"FROM {name}:1 AS a\nFROM python:3.11-slim\n"
    (copy / "Dockerfile").write_text(dockerfile)
    assert run(monkeypatch, copy, registry) == 2
    assert f"{name}:1 is in {name.partition('/')[0]}, not in Docker Hub" in capsys.readouterr().err
    assert (copy / "Dockerfile").read_text() == dockerfile
    by_hand = f"FROM {name}:1@sha256:{'c' * 64} AS a\n"
    (copy / "Dockerfile").write_text(f"{by_hand}FROM docker.io/library/python:3.11-slim\n")
    assert run(monkeypatch, copy, registry) == 0
    in_hub = f"FROM docker.io/library/python:3.11-slim@sha256:{'a' * 64}\n"
    assert (copy / "Dockerfile").read_text() == by_hand + in_hub


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "none of python3.11, python3.12, python3.13 is on the path"),
        (["python9"], "python9: no such interpreter"),
        ([__file__], "test_supply_chain.py: no such interpreter"),
    ],
)
def test_constraints_are_not_called_resolved_without_an_interpreter(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["check_constraints", *arguments])
    with pytest.raises(SystemExit) as ended:
        check_constraints.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert words in err


def test_without_a_registry_nothing_is_written(copy, monkeypatch, capsys):
    assert run(monkeypatch, copy, "http://127.0.0.1:9") == 2
    assert "nothing is pinned" in capsys.readouterr().err
    assert (copy / "docker-compose.yml").read_text() == COMPOSE


def test_no_digest_of_the_repository_is_malformed():
    for text in (DOCKERFILE, COMPOSE):
        assert all(re.fullmatch(r"[0-9a-f]{64}", found) for found in re.findall(r"sha256:(\w*)", text))


def test_the_bill_of_materials_names_every_distribution():
    bill = json.loads(json.dumps(sbom.bill()))
    versions = {each["name"]: each["version"] for each in bill["components"]}
    for name in ("numpy", "redis", "fastapi"):
        assert versions[name] == version(name)
    assert all(each["purl"].startswith("pkg:pypi/") for each in bill["components"])
    assert [each["bom-ref"] for each in bill["components"]] == sorted(each["bom-ref"] for each in bill["components"])


FINDING = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]},
        {"name": "b", "version": "1", "vulns": []},
        {"name": "c", "skip_reason": "unknown"},
    ]
}


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        (json.dumps(FINDING), 1, "a 1: X-1, fixed in 2"),
        (json.dumps({"dependencies": FINDING["dependencies"][1:]}), 0, "no known vulnerability"),
        ("", 0, "not audited"),
    ],
)
def test_known_vulnerabilities_fail_the_audit_and_a_lost_network_does_not(output, code, words, capsys):
    assert audit.report(output, "no network") == code
    assert words in capsys.readouterr().out
