"""Settings of a worker: an invalid one stops the start, and the message names it."""

import pytest

from masksmith_worker.settings import Settings


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(monkeypatch, device):
    monkeypatch.setenv("MASKSMITH_WORKER_DEVICE", device)
    assert Settings.from_environment().worker_device == device


@pytest.mark.parametrize("device", ["gpu", "CUDA:0", "cuda:", "cuda:x", "cuda:0,1", "cpu:0", "", "cuda:0\n"])
def test_a_device_of_another_form_stops_the_start(monkeypatch, device):
    monkeypatch.setenv("MASKSMITH_WORKER_DEVICE", device)
    with pytest.raises(SystemExit) as caught:
        Settings.from_environment()
    assert str(caught.value) == (
        f"refusing to start: MASKSMITH_WORKER_DEVICE={device!r}: must be cpu, cuda, or cuda:N with the number of a "
        "device, such as cuda:0"
    )


def test_every_invalid_setting_is_named(monkeypatch):
    monkeypatch.setenv("MASKSMITH_WORKER_SLOTS", "0")
    monkeypatch.setenv("MASKSMITH_LEASE_S", "soon")
    monkeypatch.setenv("MASKSMITH_ROOTS", '[{"url": "/models", "reed": ["*"]}]')
    with pytest.raises(SystemExit) as caught:
        Settings.from_environment()
    first, second, third = sorted(str(caught.value).splitlines())
    assert first.startswith("refusing to start: MASKSMITH_LEASE_S='soon': ")
    assert second.startswith("refusing to start: MASKSMITH_ROOTS, 0.reed: ")
    assert third.startswith("refusing to start: MASKSMITH_WORKER_SLOTS='0': ")


def test_roots_that_are_no_json_are_named(monkeypatch):
    monkeypatch.setenv("MASKSMITH_ROOTS", "[")
    with pytest.raises(SystemExit, match=r"^refusing to start: MASKSMITH_ROOTS: the value is not JSON$"):
        Settings.from_environment()
