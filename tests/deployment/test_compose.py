"""docker-compose.yml without Docker: its commands and environments as processes, on loopback and in a temporary folder.

What a container adds (users, read-only roots, limits) is checked by reading; what runs inside is run.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load, save

import masksmith as ms
from masksmith_service.local.valkey import find_binary
from masksmith_wire.masks import unpack

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = {name: base for base, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}
OURS = ("service", "worker", "worker-bench", "worker-gpu")


def stage(name):
    """The lines of one stage of the Dockerfile."""
    return re.split(r"^FROM \S+ AS ", DOCKERFILE, flags=re.MULTILINE)[1 + list(STAGES).index(name)]


def image_command(service):
    target = SERVICES[service]["build"]["target"]
    return json.loads(re.search(r"^CMD (\[.*\])$", stage(target), re.MULTILINE)[1])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """Stands in for Docker: rewrites addresses and paths of a compose service, and runs its command."""

    def __init__(self, folder):
        self.folder, self.redis_port, self.port = folder, free_port(), free_port()
        (folder / "redis").mkdir()

    def environment(self, service):
        rewritten = {
            "redis://redis:6379/0": f"redis://127.0.0.1:{self.redis_port}/0",
            "/data/store": str(self.folder / "store"),
            "0.0.0.0": "127.0.0.1",
            "8000": str(self.port),
        }
        given = SERVICES[service].get("environment", {})
        mine = {name: value for name, value in os.environ.items() if not name.startswith("MASKSMITH_")}
        ours = {"MASKSMITH_WORKER_COMPILE_LATER": "false"}
        return mine | ours | {name: rewritten.get(value, value) for name, value in given.items()}

    def make_key(self, *arguments):
        """Run `masksmith keys create` in the service's environment, as `docker compose run` does; gives the token."""
        command = [str(Path(sys.executable).with_name("masksmith")), "keys", "create", *arguments]
        done = subprocess.run(
            command, env=self.environment("service"), cwd=self.folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def command(self, service):
        if service == "redis":
            place = ["--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(self.folder / "redis")]
            return [str(find_binary()), *SERVICES["redis"]["command"][1:], *place]
        python, *arguments = image_command(service)
        assert python == "python"
        return [sys.executable, *arguments]

    @contextmanager
    def running(self, service):
        log = self.folder / f"{service}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(service), env=self.environment(service), stdout=output, stderr=output, cwd=self.folder
            )
        try:
            yield process
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            try:
                process.wait(240)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def call(self, path, data=None, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.read()

    def await_redis(self, limit_s=300.0):
        end = time.monotonic() + limit_s
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.redis_port), 1).close()
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.02)

    def await_answer(self, path, limit_s=300.0):
        end = time.monotonic() + limit_s
        while True:
            try:
                return self.call(path)
            except OSError as error:
                if time.monotonic() > end:
                    logs = "\n".join(log.read_text()[-2000:] for log in self.folder.glob("*.log"))
                    pytest.fail(f"{path}: {error}\n{logs}")
                time.sleep(0.1)


def test_the_composed_commands_solve_a_job(tmp_path):
    machine = Machine(tmp_path)
    weight = np.random.default_rng(7).standard_normal((40, 48), np.float32)
    with ExitStack() as stack:
        stack.enter_context(machine.running("redis"))
        machine.await_redis()
        token = machine.make_key("ops", "--role", "admin")
        for service in ("service", "worker"):
            stack.enter_context(machine.running(service))
        machine.await_answer("/healthz")
        machine.await_answer("/readyz")
        body = save({"weight": weight})
        with pytest.raises(urllib.error.HTTPError, match="401"):
            machine.call("/v1/masks?pattern=transposable%208:16", body)
        bearer = {"Authorization": f"Bearer {token}"}
        job = json.loads(machine.call("/v1/masks?pattern=transposable%208:16", body, Prefer="wait=60", **bearer))
        while job["state"] in ("queued", "running"):
            time.sleep(0.1)
            job = json.loads(machine.call(f"/v1/jobs/{job['id']}", **bearer))
        assert job["state"] == "succeeded", job
        assert job["tensors"][0]["status"] == "optimal"
        packed = load(machine.call(f"/v1/jobs/{job['id']}/masks", **bearer))["weight"]
    mask = unpack(packed, weight.shape)
    assert ms.verify(mask, "transposable 8:16")
    assert np.abs(weight)[mask].sum(dtype=np.float64) == pytest.approx(job["tensors"][0]["objective"])
    assert (tmp_path / "redis" / "appendonlydir").is_dir()


def test_a_service_for_all_refuses_to_start_without_a_key(tmp_path):
    machine = Machine(tmp_path)
    # As in the container: what listens there is reached through a published port.
    environment = machine.environment("service") | {
        "MASKSMITH_HOST": SERVICES["service"]["environment"]["MASKSMITH_HOST"]
    }
    with machine.running("redis"):
        machine.await_redis()
        done = subprocess.run(
            machine.command("service"),
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 2
    assert "masksmith keys create NAME --role admin" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_health_check_runs():
    _, python, flag, code = SERVICES["service"]["healthcheck"]["test"]
    assert (python, flag) == ("python", "-c")
    closed = code.replace(":8000/", f":{free_port()}/")
    assert subprocess.run([sys.executable, flag, closed], stderr=subprocess.DEVNULL, check=False).returncode == 1
    assert "/healthz" in code
    assert SERVICES["redis"]["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]


def test_redis_logs_every_change_and_never_evicts():
    words = SERVICES["redis"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


@pytest.mark.parametrize("service", OURS)
def test_targets_and_extras_exist(service):
    build = SERVICES[service]["build"]
    target = build["target"]
    assert STAGES[target] == "runtime"
    installed = re.search(r"pip install -c constraints\.txt ['\"]\.\[([^\]]+)\]['\"]", stage(f"build-{target}"))[1]
    default = re.search(r"^ARG WORKER_EXTRAS=(\S+)$", stage(f"build-{target}"), re.MULTILINE)
    chosen = build.get("args", {}).get("WORKER_EXTRAS") or (installed if default is None else default[1])
    extra, *others = chosen.split(",")
    assert others == {"service": ["cli"], "worker-gpu": ["cuda"]}.get(service, ["torch"])
    assert f"COPY --from=build-{target} " in stage(target)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra == target
    assert {extra, *others} <= project["optional-dependencies"].keys()
    module = image_command(service)[-1]
    assert list(ROOT.glob(f"*/{module}/__main__.py"))


def test_copied_paths_exist_and_are_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert copied
    for path in copied:
        assert (ROOT / path).exists()
        assert f"!{path}" in ignored


@pytest.mark.parametrize("service", OURS)
def test_settings_are_known(service):
    classes = {"service": "masksmith_service", "worker": "masksmith_worker"}
    module = __import__(f"{classes[SERVICES[service]['build']['target']]}.settings", fromlist=["Settings"])
    known = {f"MASKSMITH_{name.upper()}" for name in module.Settings.model_fields}
    assert set(SERVICES[service]["environment"]) <= known


@pytest.mark.parametrize("service", SERVICES)
def test_containers_are_confined(service):
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert "/tmp" in found["tmpfs"]
    assert found["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    if service in OURS:
        assert re.search(r"^USER masksmith$", stage("runtime"), re.MULTILINE)
    else:
        assert found["user"] != "root"


def test_volumes_are_declared_and_hold_what_is_written():
    mounts = {name: dict(volume.split(":") for volume in found["volumes"]) for name, found in SERVICES.items()}
    assert {volume for mount in mounts.values() for volume in mount} == set(COMPOSE["volumes"])
    for service in OURS:
        assert SERVICES[service]["environment"]["MASKSMITH_STORE_URL"].startswith(mounts[service]["data"] + "/")
    cache = re.search(r"NUMBA_CACHE_DIR=(\S+)", stage("worker"))[1]
    assert cache.startswith(mounts["worker"]["cache"] + "/")
    assert mounts["redis"] == {"redis": "/data"}
    writable = re.search(r"mkdir -p (.+?) \\\n", stage("runtime"))[1].split()
    assert {cache, SERVICES["worker"]["environment"]["MASKSMITH_STORE_URL"]} <= set(writable)


def test_only_this_machine_is_listened_on():
    for found in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in found.get("ports", []))


def test_the_gpu_worker_is_started_by_the_profile():
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    assert not any("profiles" in SERVICES[name] for name in ("redis", "service", "worker"))
