"""Real processes for suites that start, watch and kill them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# Small shards, so that a job which takes seconds can be killed in the middle. Leases keep their default: on a busy
# machine an import of torch can hold the GIL, and with it the renewal of a lease, for three seconds.
QUICK = {
    "MASKSMITH_SWEEP_S": "0.5", "MASKSMITH_SHARD_BYTES": str(2**18),
    "MASKSMITH_WORKER_COMPILE_LATER": "false", "MASKSMITH_AUTH": "none",
}  # fmt: skip
MASKSMITH = Path(sys.executable).with_name("masksmith")
SLOW_PATTERN = "transposable 32:64"


def environment(**given):
    """Return this process's environment without variables `MASKSMITH_...`, with `QUICK` and the given ones."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MASKSMITH_")}
    return ours | QUICK | given


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def poll(condition, timeout_s=300.0):
    """Call a function until its result is true; return the result.

    The longer the wait, the longer the pauses, up to 0.2 s: checking takes processor time of the process that is waited
    for.
    """
    begin = time.monotonic()
    while not (found := condition()):
        waited_s = time.monotonic() - begin
        assert waited_s < timeout_s, "it took too long"
        time.sleep(min(0.2, max(0.02, waited_s / 10)))
    return found


def living(field, value):
    """Return the processes, without zombies, with this number in a field of /proc/PID/stat, counted after the name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[field]) == value and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def children_of(pid):
    return living(1, pid)


def pool_of(worker):
    """Return the pool processes of a worker, which solve."""
    return [pid for pid in children_of(worker) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def memory_mib(pid, what):
    """Return the sum of a value such as VmRSS of a process and its children, in MiB."""
    lines = [line for one in (pid, *children_of(pid)) for line in Path(f"/proc/{one}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def run(module, log, given):
    """Start `python -m module` with its output in a file."""
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-P", "-m", module], env=given, stdout=file, stderr=subprocess.STDOUT)


def tails(paths, lines=40):
    """Return the last lines of logs, for the report of a failure."""
    return [
        (path.name, "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
        for path in paths
        if path.exists()
    ]


class Up:
    """`masksmith up`, in a process group of its own as in a terminal."""

    def __init__(self, data, log, variables, *options):
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [MASKSMITH, "up", "--port", "0", "--data", data, "--workers", "2", "--json", *options],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env=variables, start_new_session=True,
        )  # fmt: skip
        line = self._process.stdout.readline()
        assert line, log.read_text()
        self.url = json.loads(line)["url"]
        self.group = self._process.pid

    def signal(self, number):
        """Send a signal to the group, as a terminal does, or SIGKILL to `up` alone; return the exit code."""
        if number == signal.SIGKILL:
            self._process.kill()
        else:
            os.killpg(self.group, number)
        try:
            return self._process.wait(240)
        finally:
            self._process.stdout.close()
            self._log.close()

    def stop(self):
        """Stop it as Ctrl-C does; return its exit code."""
        return self.signal(signal.SIGINT)

    def members(self):
        """Return the processes of its group that are alive."""
        return living(2, self.group)

    def part(self, word):
        """Return the child process with this word in its command line."""
        (found,) = [pid for pid in children_of(self.group) if word in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return found

    @property
    def running(self):
        return self._process.poll() is None
