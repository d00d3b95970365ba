"""`masksmith service`: options become the settings of the process that takes its place."""

import os

import pytest

from masksmith_client.cli.app import run


def test_options_of_the_service_become_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: started.append(arguments))
    monkeypatch.delenv("MASKSMITH_HOST", raising=False)
    assert run(["service", "--port", "9", "--processes", "2"]) == 0
    [(_, command, environment)] = started
    assert command[-2:] == ["-m", "masksmith_service"]
    assert environment["MASKSMITH_PROCESSES"] == "2"
    assert environment["MASKSMITH_PORT"] == "9"
    assert "MASKSMITH_HOST" not in environment


def test_a_service_has_a_process() -> None:
    assert run(["service", "--processes", "0"]) == 2
