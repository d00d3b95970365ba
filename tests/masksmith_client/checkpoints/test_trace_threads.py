"""Traces in several threads at once: settings of the process are restored, and other threads build models freely."""

import threading

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from masksmith_client.checkpoints.tracing import size_limits
from masksmith_client.checkpoints.tracing.models import tracing_settings
from masksmith_client.checkpoints.tracing.size_limits import limited_modules


def settings() -> tuple[bool, bool]:
    return constants.HF_HUB_OFFLINE, torch.backends.mha.get_fastpath_enabled()


def test_settings_are_restored_after_two_traces_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before, is_inside, may_leave = settings(), threading.Event(), threading.Event()

    def second() -> None:
        with tracing_settings():
            is_inside.set()
            may_leave.wait()

    thread = threading.Thread(target=second)
    with tracing_settings():
        thread.start()
        assert not is_inside.wait(0.2)
    may_leave.set()
    thread.join()
    assert settings() == before


def test_modules_of_other_threads_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "BASE_MODULES", 2)
    sizes: list[int] = []

    def build() -> None:
        sizes.append(len(nn.Sequential(*[nn.Identity() for _ in range(5)])))

    with limited_modules(0):
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="more than 2 modules"):
            build()
    assert sizes == [5]
