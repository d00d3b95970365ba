"""What several suites share: a real Valkey server on a unix socket, emptied before each test."""

import gc
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.axes import mark_repeated_values, note_lane
from support.broker import Valkey
from support.scheduling import InstallationScheduling, longest_first
from support.without_torch import INSTALLED, is_left_out, left_out

from masksmith_state.blobs.store import BlobStore
from masksmith_state.jobs.records import JobRecords

# The name by which starlette's test client calls the application.
os.environ.setdefault("MASKSMITH_ALLOWED_HOSTS", "testserver")
# As `masksmith up` sets it: most tests need no keys.
os.environ.setdefault("MASKSMITH_AUTH", "none")


def pytest_configure(config):
    """Give this run a cache directory of its own, which its test processes share."""
    note_lane(config)
    gc.disable()
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="ms-cache-")
        os.environ["XDG_CACHE_HOME"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return InstallationScheduling(config, log)


def pytest_ignore_collect(collection_path):
    return True if is_left_out(collection_path) else None


@pytest.hookimpl(tryfirst=True)  # before slow tests are deselected
def pytest_collection_modifyitems(config, items):
    mark_repeated_values(items)
    needs_torch = [item for item in items if not INSTALLED and item.get_closest_marker("torch")]
    config.hook.pytest_deselected(items=needs_torch)
    items[:] = [item for item in items if item not in needs_torch]
    longest_first(items)


def pytest_collection_finish(session):
    """Exempt what collecting has made from garbage collection: each full collection would pass over all of it."""
    gc.enable()
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config):
    files = left_out([Path(argument.partition("::")[0]).resolve() for argument in config.args])
    if files:
        names = [str(file.relative_to(config.rootpath)) for file in files]
        terminalreporter.section(f"{len(files)} files of tests left out: they need torch, which is not installed")
        terminalreporter.line("\n".join(names))


@contextmanager
def served():
    # pytest's own folders are too deep for the path of a unix socket.
    folder = Path(tempfile.mkdtemp(prefix="ms-"))
    server = Valkey(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def valkey():
    with served() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_with_workers():
    """Another server, for suites whose real workers would take the jobs that other suites only look at."""
    with served() as server:
        yield server


@pytest.fixture
def fragile_valkey():
    """A server for one test, which may stop and start it; not yet started."""
    folder = Path(tempfile.mkdtemp(prefix="ms-"))
    server = Valkey(folder, durable=True)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def records(valkey):
    records = JobRecords(valkey.url)
    records.redis.flushall()
    yield records
    records.redis.close()


@pytest.fixture
def store(tmp_path):
    return BlobStore(str(tmp_path / "store"), create=True)
