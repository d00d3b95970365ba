"""The scripts of the start page read the headers of files; run by node."""

import json
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from safetensors.numpy import save_file

NAMES = ["constructor", "__proto__", "toString", "a.z-b", "a]", "q"]

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")


def run(program):
    """Run a program that has `readTensors`; return what its last expression, an array, holds."""
    script = files("masksmith_service.pages") / "static" / "selection.js"
    source = f"""globalThis.document = {{ documentElement: {{ dataset: {{ root: "" }} }} }};
        const {{ readTensors }} = await import({json.dumps("file://" + str(script))});
        const {{ openAsBlob }} = await import("node:fs");
        console.log(JSON.stringify(await (async () => {{ {program} }})()));"""
    command = ["node", "--input-type=module", "--eval", source]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_any_name_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({name: np.ones((2, 4), np.float32) for name in NAMES}, path)
    program = f"return [...(await readTensors([await openAsBlob({json.dumps(str(path))})])).tensors.keys()].sort();"
    assert run(program) == sorted(NAMES)


def test_a_name_in_two_files_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"constructor": np.ones((2, 4), np.float32)}, path)
    program = f"""const file = await openAsBlob({json.dumps(str(path))});
        return readTensors([file, file]).catch((error) => error.message);"""
    assert "a tensor named constructor is in another of the files" in run(program)
