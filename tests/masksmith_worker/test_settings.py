"""The device of a worker has one of three forms; all invalid settings are named at once."""

import os

import pytest

from masksmith_state.settings import read_settings
from masksmith_worker.settings import Settings


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(monkeypatch, device):
    monkeypatch.setenv("MASKSMITH_WORKER_DEVICE", device)
    assert read_settings(Settings).worker_device == device


@pytest.mark.parametrize("device", ["gpu", "CUDA:0", "cuda:", "cuda:x", "cuda:0,1", "cpu:0", "", "cuda:0\n"])
def test_a_device_of_another_form_stops_the_start(monkeypatch, capsys, device):
    monkeypatch.setenv("MASKSMITH_WORKER_DEVICE", device)
    with pytest.raises(SystemExit):
        read_settings(Settings)
    assert f"MASKSMITH_WORKER_DEVICE={device!r}: must be cpu, cuda, or cuda:N" in capsys.readouterr().err


def test_every_invalid_setting_is_named(monkeypatch, capsys):
    monkeypatch.setenv("MASKSMITH_WORKER_SLOTS", "0")
    monkeypatch.setenv("MASKSMITH_LEASE_S", "soon")
    with pytest.raises(SystemExit):
        read_settings(Settings)
    first, second = sorted(capsys.readouterr().err.splitlines())
    assert first.startswith("masksmith: MASKSMITH_LEASE_S='soon': ")
    assert second.startswith("masksmith: MASKSMITH_WORKER_SLOTS='0': ")


def test_a_machine_without_affinities_has_slots(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert read_settings(Settings).worker_slots == os.cpu_count()
