"""A whole installation for the pages' commands: `masksmith up`, as a reader would start it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.axes import is_long_run

BIN = Path(sys.executable).parent


@pytest.fixture(scope="package")
def reader(tmp_path_factory):
    """The environment of a reader of the guide, with an installation running at `MASKSMITH_URL`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MASKSMITH_")}
    environment = clean | {"PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "120", "NO_COLOR": "1",
                           "MASKSMITH_WORKER_COMPILE_LATER": "false"}  # fmt: skip
    data = tmp_path_factory.mktemp("data")
    # Only pages of the long lane measure kernels.
    bench = "--bench" if is_long_run() else "--no-bench"
    command = [str(BIN / "masksmith"), "up", "--port", "0", "--workers", "2", "--data", str(data), "--json", bench]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield environment | {"MASKSMITH_URL": json.loads(process.stdout.readline())["url"]}
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(240)
