"""Settings from the environment: one that is invalid is a line for the user."""

import pytest

from masksmith_service.settings import Settings
from masksmith_state.settings import StateSettings, read_settings
from masksmith_worker.settings import Settings as WorkerSettings


@pytest.mark.parametrize(
    ("settings", "name", "value", "reason"),
    [
        (Settings, "SHARD_BYTES", "-1", "input should be greater than 0"),
        (Settings, "PORT", "abc", "input should be a valid integer, unable to parse string as an integer"),
        (StateSettings, "ROOTS", "x", "is not JSON"),
        (StateSettings, "LOG_LEVEL", "LOUD", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        (StateSettings, "STORE_URL", "ftp://x", "must be a directory or s3://bucket/prefix"),
        (StateSettings, "STORE_URL", "s3://", "must be a directory or s3://bucket/prefix"),
        (StateSettings, "OTLP_URL", "x", "must be an address such as http://127.0.0.1:4318"),
        (WorkerSettings, "WORKER_DEVICE", "gpu", "must be cpu, or a CUDA device such as cuda:0"),
    ],
)
def test_a_setting_that_is_invalid_is_named_with_its_value(
    settings: type[StateSettings],
    name: str,
    value: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(f"MASKSMITH_{name}", value)
    with pytest.raises(SystemExit) as raised:
        read_settings(settings)
    assert raised.value.code == 2
    assert capsys.readouterr().err == f"masksmith: MASKSMITH_{name}={value!r}: {reason}\n"


def test_a_password_is_not_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MASKSMITH_REDIS_URL", "redis://ann:SECRET@host:port/0")
    with pytest.raises(SystemExit):
        read_settings(StateSettings)
    error = capsys.readouterr().err
    assert "MASKSMITH_REDIS_URL='redis://***@host:port/0': port could not be cast" in error
    assert "SECRET" not in error


def test_levels_may_be_written_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKSMITH_LOG_LEVEL", "debug")
    assert read_settings(StateSettings).log_level == "DEBUG"
