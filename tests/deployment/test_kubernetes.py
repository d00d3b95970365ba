"""deploy/kubernetes without a cluster: manifests against Kubernetes' schemas, and their processes on this machine."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import kubernetes_validate
import numpy as np
import pytest
import yaml
from safetensors.numpy import save
from support.pages import blocks
from support.processes import environment, free_port, poll

from masksmith_service.local.valkey import find_binary
from masksmith_service.server import GRACE_S
from masksmith_service.settings import Settings as ServiceSettings
from masksmith_state.queue import QUEUES, role_and_device
from masksmith_state.worker_registry import HEARTBEAT_TIMEOUT_S
from masksmith_worker.settings import Settings as WorkerSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
LAYERS = ("base", "gpu", "autoscaling")
SCHEMA_VERSION = "1.31"
SETTINGS = {"masksmith-service": ServiceSettings, "masksmith-worker": WorkerSettings}
CUSTOM = {
    "ScaledObject": ("keda.sh/v1alpha1", {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval",
                                         "cooldownPeriod", "triggers"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
}  # fmt: skip


def kustomization(layer):
    return yaml.safe_load((FOLDER / layer / "kustomization.yaml").read_text())


def documents(layer):
    """What a kustomization applies, with that of the layers below it."""
    found = []
    for name in kustomization(layer)["resources"]:
        if name.startswith("../"):
            found += documents(name.removeprefix("../"))
        else:
            found += yaml.safe_load_all((FOLDER / layer / name).read_text())
    return found


ALL = documents("autoscaling")
FIRST_KEY = yaml.safe_load((FOLDER / "first-key.yaml").read_text())
BY_KIND = {kind: {each["metadata"]["name"]: each for each in ALL if each["kind"] == kind} for kind in
           {each["kind"] for each in ALL}}  # fmt: skip
WORKLOADS = BY_KIND["Deployment"] | BY_KIND["StatefulSet"]
SHARED = BY_KIND["ConfigMap"]["masksmith-settings"]["data"]


def container(name):
    (only,) = WORKLOADS[name]["spec"]["template"]["spec"]["containers"]
    return only


def own_environment(name):
    return {each["name"]: each.get("value", "a-pod") for each in container(name).get("env", [])}


def selected(labels):
    return {name for name, each in WORKLOADS.items()
            if labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()}  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_every_file_is_applied(layer):
    files = {path.name for path in (FOLDER / layer).iterdir()} - {"kustomization.yaml"}
    assert files == {name for name in kustomization(layer)["resources"] if not name.startswith("../")}
    assert kustomization(layer)["namespace"] in BY_KIND["Namespace"]


@pytest.mark.parametrize("document", [*ALL, FIRST_KEY], ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_documents_obey_their_schemas(document):
    if document["kind"] in CUSTOM:
        version, members = CUSTOM[document["kind"]]
        assert document["apiVersion"] == version
        assert document["spec"].keys() <= members
        assert document.keys() == {"apiVersion", "kind", "metadata", "spec"}
    else:
        kubernetes_validate.validate(document, SCHEMA_VERSION, strict=True)


def test_the_schema_check_can_fail():
    wrong = yaml.safe_load(yaml.safe_dump(WORKLOADS["masksmith-service"]))
    wrong["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, SCHEMA_VERSION, strict=True)


@pytest.mark.parametrize("name", [name for name in WORKLOADS if name != "valkey"])
def test_settings_exist(name):
    kind = next(kind for kind in SETTINGS if name.startswith(kind))
    known = {f"MASKSMITH_{field.upper()}" for field in SETTINGS[kind].model_fields}
    assert {each for each in own_environment(name) if each.startswith("MASKSMITH_")} <= known
    assert {each for each in SHARED if each.startswith("MASKSMITH_")} <= known
    given = {each.removeprefix("MASKSMITH_").lower(): value for each, value in (SHARED | own_environment(name)).items()
             if each.startswith("MASKSMITH_")}  # fmt: skip
    assert SETTINGS[kind].model_validate(given).store_location.startswith("s3://")
    assert {"configMapRef": {"name": "masksmith-settings"}} in container(name)["envFrom"]


def test_images_are_those_of_the_dockerfile():
    assert container("masksmith-service")["image"] == "masksmith-service"
    assert {container(f"masksmith-worker-{device}")["image"] for device in ("cpu", "gpu")} == {
        "masksmith-worker", "masksmith-worker-gpu"
    }  # fmt: skip
    assert not any("command" in container(name) for name in WORKLOADS if name != "valkey"), "the images have them"
    named = {image["name"] for layer in LAYERS for image in kustomization(layer).get("images", [])}
    assert named == {container(name)["image"] for name in WORKLOADS} - {"valkey/valkey:9-alpine"}


def test_the_overlay_of_the_guide_changes_what_exists():
    [(_, block)] = blocks(ROOT / "docs" / "cluster.md", "yaml")
    overlay = yaml.safe_load(block)
    assert overlay["resources"] == ["../deploy/kubernetes/base"]
    assert {image["name"] for image in overlay["images"]} == {
        image["name"] for image in kustomization("base")["images"]
    }
    for patch in overlay["patches"]:
        document, change = BY_KIND[patch["target"]["kind"]][patch["target"]["name"]], yaml.safe_load(patch["patch"])
        if isinstance(change, list):
            assert all(each["path"].removeprefix("/data/") in document["data"] for each in change)
        else:
            [changed] = change["spec"]["template"]["spec"]["containers"]
            assert changed["name"] == container(patch["target"]["name"])["name"]
            assert {each["name"] for each in changed["env"]} <= own_environment(patch["target"]["name"]).keys()


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_are_confined_and_end_in_time(name):
    pod = WORKLOADS[name]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    }  # fmt: skip
    assert "memory" in container(name)["resources"]["limits"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert "readinessProbe" in container(name)


def test_every_workload_has_a_budget_and_policies():
    budgets = [selected(each["spec"]["selector"]["matchLabels"]) for each in BY_KIND["PodDisruptionBudget"].values()]
    assert sorted(map(sorted, budgets)) == sorted([name] for name in WORKLOADS)
    policies = BY_KIND["NetworkPolicy"]
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    apps = {each["spec"]["template"]["metadata"]["labels"]["app"] for each in (*WORKLOADS.values(), FIRST_KEY)}
    for policy in policies.values():
        selector = policy["spec"]["podSelector"]
        values = [value for each in selector.get("matchExpressions", []) for value in each["values"]]
        assert {*values, *selector.get("matchLabels", {}).values()} <= apps
    ports = {port["name"] for name in WORKLOADS for port in container(name).get("ports", [])}
    assert {
        each["port"] for name in ("valkey", "service") for each in policies[name]["spec"]["ingress"][0]["ports"]
    } <= ports


def test_services_lead_to_pods():
    host = SHARED["MASKSMITH_REDIS_URL"].removeprefix("redis://").partition(":")[0]
    assert selected(BY_KIND["Service"][host]["spec"]["selector"]) == {"valkey"}
    assert selected(BY_KIND["Service"]["masksmith"]["spec"]["selector"]) == {"masksmith-service"}
    monitor = BY_KIND["ServiceMonitor"]["masksmith"]["spec"]
    assert monitor["selector"]["matchLabels"] == BY_KIND["Service"]["masksmith"]["metadata"]["labels"]
    assert monitor["endpoints"][0]["port"] in {
        port["name"] for port in BY_KIND["Service"]["masksmith"]["spec"]["ports"]
    }


def test_workers_are_scaled_by_the_queue_that_they_consume():
    for device, queue in (("cpu", "masksmith.cpu"), ("gpu", "masksmith.gpu")):
        scaled = BY_KIND["ScaledObject"][f"masksmith-worker-{device}"]["spec"]
        assert scaled["scaleTargetRef"]["name"] in WORKLOADS
        assert scaled["minReplicaCount"] <= scaled["maxReplicaCount"]
        (trigger,) = scaled["triggers"]
        assert trigger["metadata"]["query"] == f'max(masksmith_queue_depth{{queue="{queue}"}})'
        assert queue in QUEUES
        role, kind = role_and_device(queue)
        assert role == "search"
        assert own_environment(scaled["scaleTargetRef"]["name"])["MASKSMITH_WORKER_DEVICE"].startswith(kind)


def test_only_the_autoscaler_sets_the_number_of_the_workers_that_it_scales():
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in BY_KIND["ScaledObject"].values()}
    removed = [
        name
        for patch in kustomization("autoscaling")["patches"]
        for name in BY_KIND[patch["target"]["kind"]]
        if re.fullmatch(patch["target"]["name"], name)
        and yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]
    ]
    assert sorted(removed) == sorted(scaled)
    assert all("replicas" in WORKLOADS[name]["spec"] for name in scaled), "such a patch needs the field"


def test_a_service_that_ends_takes_connections_until_nodes_have_learnt_of_it():
    command, seconds = container("masksmith-service")["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    pod = WORKLOADS["masksmith-service"]["spec"]["template"]["spec"]
    assert 2 <= int(seconds) <= pod["terminationGracePeriodSeconds"] - GRACE_S


class Node:
    """Runs pods as processes: their environments, with addresses of this machine."""

    def __init__(self, folder):
        self.folder, self.redis_port, self.port, self.s3_port = folder, free_port(), free_port(), free_port()

    def environment(self, name):
        rewritten = {
            SHARED["MASKSMITH_REDIS_URL"]: f"redis://127.0.0.1:{self.redis_port}/0",
            "0.0.0.0": "127.0.0.1",
            "8000": str(self.port),
        }
        bucket = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ALLOW_HTTP": "true",
                  "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.s3_port}"}  # fmt: skip
        given = SHARED | own_environment(name)
        return environment(**{key: rewritten.get(value, value) for key, value in given.items()}, **bucket)

    @contextmanager
    def running(self, name, command, given=None):
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=given, stdout=log, stderr=log, cwd=self.folder)
        try:
            yield
        finally:
            process.terminate()
            process.wait(240)

    def probe(self, name):
        python, *arguments = container(name)["readinessProbe"]["exec"]["command"]
        assert python == "python"
        return subprocess.run([sys.executable, *arguments], env=self.environment(name), check=False).returncode == 0


def answers(address):
    try:
        return httpx2.get(address).status_code < 500
    except httpx2.TransportError:
        return False


@pytest.mark.slow
def test_the_pods_solve_a_job_and_export_the_gauge(tmp_path):
    node = Node(tmp_path)
    valkey = container("valkey")
    place = ["--port", str(node.redis_port), "--bind", "127.0.0.1", "--dir", str(tmp_path)]
    url, bucket = f"http://127.0.0.1:{node.port}", f"http://127.0.0.1:{node.s3_port}"
    with ExitStack() as stack:
        stack.enter_context(node.running("valkey", [str(find_binary()), *valkey["args"], *place], dict(os.environ)))
        stack.enter_context(node.running("s3", [sys.executable, "-m", "moto.server", "-p", str(node.s3_port)]))
        poll(lambda: answers(bucket))
        assert httpx2.put(f"{bucket}/masksmith").status_code == 200
        service = node.environment("masksmith-service")
        (keys,) = FIRST_KEY["spec"]["template"]["spec"]["containers"]
        masksmith = [str(Path(sys.executable).with_name(keys["args"][0])), *keys["args"][1:]]
        token = subprocess.run(masksmith, env=service, capture_output=True, text=True, check=True).stdout.strip()
        stack.enter_context(node.running("service", [sys.executable, "-P", "-m", "masksmith_service"], service))
        probe = container("masksmith-service")["livenessProbe"]["httpGet"]
        poll(lambda: answers(url + probe["path"]))
        headers = {"Authorization": f"Bearer {token}"}
        weight = np.random.default_rng(3).standard_normal((16, 16)).astype(np.float32)
        job = httpx2.post(f"{url}/v1/masks?pattern=2:4", content=save({"w": weight}), headers=headers).json()["id"]
        lines = httpx2.get(f"{url}/metrics", headers=headers).text.splitlines()
        assert 'masksmith_queue_depth{queue="masksmith.cpu"} 1.0' in lines
        name = "masksmith-worker-cpu"
        assert not node.probe(name)
        worker = node.environment(name)
        stack.enter_context(node.running("worker", [sys.executable, "-P", "-m", "masksmith_worker"], worker))
        poll(lambda: node.probe(name))
        assert container(name)["readinessProbe"]["periodSeconds"] <= HEARTBEAT_TIMEOUT_S
        poll(lambda: httpx2.get(f"{url}/v1/jobs/{job}", headers=headers).json()["state"] == "succeeded")
