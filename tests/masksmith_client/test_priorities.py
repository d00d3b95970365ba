"""Which priority the client asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from masksmith_client import InputError
from masksmith_client.checkpoints.remote import RemoteSolver
from masksmith_client.submission import prepare as prepare_module
from masksmith_client.submission.benchmarks import prepare_benchmark
from masksmith_client.submission.prepare import prepare

WEIGHTS = {"a": np.ones((8, 8), np.float32)}


def priority_of(**options: Any) -> str:
    return prepare(WEIGHTS, "2:4", **options).description.priority.value


def test_small_jobs_are_interactive_and_large_ones_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert priority_of() == "interactive"
    monkeypatch.setattr(prepare_module, "INTERACTIVE_BYTES", 100)
    assert priority_of() == "normal"
    assert priority_of(priority="interactive") == "interactive"


def test_what_the_caller_says_counts() -> None:
    assert [priority_of(priority=each) for each in ("normal", "batch")] == ["normal", "batch"]
    assert prepare_benchmark("64x64", "2:4", priority="batch").priority == "batch"
    assert prepare_benchmark("64x64", "2:4").priority == "normal"


def test_whole_checkpoints_are_batch() -> None:
    assert RemoteSolver.priority.value == "batch"


def test_a_priority_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="priority"):
        priority_of(priority="urgent")
