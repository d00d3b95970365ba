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
VALKEY = Path("deploy/kubernetes/base/valkey.yaml")
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
    (tmp_path / VALKEY).parent.mkdir(parents=True)
    (tmp_path / VALKEY).write_text((ROOT / VALKEY).read_text())
    return tmp_path


def run(monkeypatch, copy, registry, *arguments):
    monkeypatch.setattr(sys, "argv", ["resolve_images", *arguments])
    return resolve_images.main(copy, registry)


def test_every_image_that_is_not_built_here_is_pinned(registry, copy, monkeypatch):
    assert run(monkeypatch, copy, registry, "--check") == 1
    assert (copy / "Dockerfile").read_text() == DOCKERFILE
    assert run(monkeypatch, copy, registry) == 0
    dockerfile, compose = (copy / "Dockerfile").read_text(), (copy / "docker-compose.yml").read_text()
    assert dockerfile.count(f"FROM python:3.11-slim@sha256:{'a' * 64} AS ") == DOCKERFILE.count("FROM python:")
    # Docker would ignore an argument that is in the tag only, and build another Python than the one asked for.
    assert "PYTHON=3.11" not in dockerfile
    assert "ARG PIP_INDEX_URL\n" in dockerfile
    for text in (compose, (copy / VALKEY).read_text()):
        assert f"image: valkey/valkey:9-alpine@sha256:{'b' * 64}\n" in text
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"FROM python:${PYTHON}-slim\n", "a build argument of the tag has no default"),
        (b"FROM python:$PYTHON\n", "a build argument of the tag has no default"),
        (b"\xff", "can't decode byte 0xff"),
        (None, "No such file or directory"),
    ],
)
def test_files_that_cannot_be_pinned_are_refused_with_a_message(registry, copy, monkeypatch, capsys, content, words):
    if content is None:
        (copy / "Dockerfile").unlink()
    else:
        (copy / "Dockerfile").write_bytes(content)
    assert run(monkeypatch, copy, registry) == 2
    err = capsys.readouterr().err
    assert err.startswith("nothing is pinned: ")
    assert words in err
    assert (copy / "docker-compose.yml").read_text() == COMPOSE


def test_a_build_argument_may_be_written_without_braces(registry, copy, monkeypatch):
    (copy / "Dockerfile").write_text("ARG PYTHON=3.11\nFROM python:$PYTHON-slim\n")
    assert run(monkeypatch, copy, registry) == 0
    assert (copy / "Dockerfile").read_text() == f"FROM python:3.11-slim@sha256:{'a' * 64}\n"


def test_a_build_argument_that_is_used_elsewhere_stays(registry, copy, monkeypatch):
    (copy / "Dockerfile").write_text("ARG PYTHON=3.11\nFROM python:$PYTHON-slim\nARG PYTHON\nRUN echo ${PYTHON}\n")
    assert run(monkeypatch, copy, registry) == 0
    pinned = f"ARG PYTHON=3.11\nFROM python:3.11-slim@sha256:{'a' * 64}\nARG PYTHON\nRUN echo ${{PYTHON}}\n"
    assert (copy / "Dockerfile").read_text() == pinned


def test_every_file_with_an_image_of_a_registry_is_pinned():
    files = [path for path in (ROOT / "deploy").rglob("*.yaml") if "first-key" not in path.name]
    found = {str(path.relative_to(ROOT)) for path in files if resolve_images.REFERENCE.search(path.read_text())}
    assert found <= set(resolve_images.FILES)


def test_an_interpreter_without_pip_is_a_problem_with_a_message(tmp_path):
    interpreter = tmp_path / "python3"
    interpreter.write_text("#!/bin/sh\necho 'No module named venv' >&2\nexit 1\n")
    interpreter.chmod(0o755)
    assert check_constraints.check(str(interpreter)) == [f"{interpreter}: No module named venv"]


def test_constraints_that_cannot_be_read_are_not_called_audited(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["audit"])
    assert audit.main() == 2
    assert "constraints.txt cannot be read" in capsys.readouterr().err


def test_an_audit_without_its_tool_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["audit"])
    monkeypatch.setattr(audit, "FOLDER", tmp_path / "missing" / "folder")
    (tmp_path / "missing").write_text("")
    assert audit.main() == 0
    assert "not audited: pip-audit cannot be installed" in capsys.readouterr().out


def test_a_distribution_without_a_name_is_left_out_of_the_bill(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken-1.dist-info").mkdir()
    (tmp_path / "broken-1.dist-info" / "METADATA").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sbom.bill()["components"]
    assert f"left out: {tmp_path}" in capsys.readouterr().err


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
        ("[]", 0, "not audited"),
    ],
)
def test_known_vulnerabilities_fail_the_audit_and_a_lost_network_does_not(output, code, words, capsys):
    assert audit.report(output, "no network") == code
    assert words in capsys.readouterr().out
