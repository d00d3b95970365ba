"""The description of the machine that measured."""

import os

import pytest

from masksmith.benchmark.machine import describe


@pytest.mark.torch
def test_a_machine_without_affinities_has_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    facts = describe("cpu", 3)
    assert (facts["cores"], facts["threads"]) == (os.cpu_count(), 3)
